"""How the loss's derivative is split between encoder and codebook: a relation that needs no formula for the loss.

ℓ is a quadratic form in x − q, so a central difference of its values is its plain derivative with no truncation error,
however large the step. It is that in the middle between the two points, which rounding them moves a little. Autograd
hands each side its share of that: b/(a + b) to the encoder and a/(a + b) to the codebook, which are β/(1 + β) and
1/(1 + β) in the usual form. The shares tell one fault from another. One mean square without a stop, whose value has
another weight c than a + b, gives b/c and a/c: both are 1.
"""

import dataclasses

import numpy as np
from hypothesis import assume

from vq_reference.testing import bounds
from vq_reference.testing.adapters.implementation import Cotangent
from vq_reference.testing.closed_forms import arrived
from vq_reference.testing.law import law
from vq_reference.testing.measure import assert_within
from vq_reference.testing.strategies import REGULAR_NORMS, Case, cases, without_traces

OORD = "van den Oord et al., arXiv 1711.00937, eq. 3: its plain derivative, and what the stop-gradients leave of it"
NEEDS = {"loss", "indices", "codebook_gradient"}
one_code = cases(places=("anywhere", "at an angle"), most_codes=1)


def share(gradient, step, values, errors):
    """Return autograd's derivative along `step` over the plain one, and the bound on that quotient."""
    routed = float(np.sum(gradient * step))
    plain = (values[0] - values[1]) / 2
    return routed / plain, abs(routed) / plain**2 * (errors[0] + errors[1]) / 2


@law("loss.shares", level="must", source=OORD, needs=NEEDS, case=one_code)
def test_encoder_and_codebook_get_their_shares_of_the_losss_derivative(implementation, case):
    """Of the loss's plain derivative the encoder gets β/(1 + β) and the codebook 1/(1 + β), as declared."""
    a, b = implementation.loss_weights(case.reference)
    c = a + b if implementation.loss_value is None else implementation.loss_value(case.reference)
    assume(c > 0)  # nothing cannot be shared
    # one code, or an instance whose codes are all the same: no choice can change while it is moved
    x, code, rounded = case.x, case.codes[:1], implementation.precision.round
    assume(np.all(np.linalg.norm(x - code, axis=1) > REGULAR_NORMS[0]))
    answer = implementation.build(case.reference)(x, [Cotangent(np.zeros_like(x), 1.0)])

    outward, inward = rounded(x + (x - code) / 2), rounded(x - (x - code) / 2)
    values = [implementation.build(case.reference)(moved).loss for moved in (outward, inward)]
    off = displaced(x, outward, inward, x - code)
    check(implementation, "encoder", answer.gradients[0].x, (outward - inward) / 2, values, b / c, off, case)

    step = np.mean(code - x, axis=0, keepdims=True)
    assume(np.linalg.norm(step) > REGULAR_NORMS[0])
    ahead, behind = rounded(case.codes + step / 2), rounded(case.codes - step / 2)
    values = [implementation.build(with_code(case, moved))(x).loss for moved in (ahead, behind)]
    off = displaced(case.codes, ahead, behind, step)
    check(implementation, "codebook", answer.gradients[0].codebook, (ahead - behind) / 2, values, a / c, off, case)


def displaced(at, ahead, behind, away):
    """Return how far the plain derivative in the middle of two points is from that at `at`, relative to the latter.

    The derivative along a step is a multiple of away·step, where `away` is how far `at` is from what it is compared
    with. In the middle, which is m away from `at`, it is that of (away + m)·step: (1 + δ) times as large with
    δ = m·step / away·step. A quotient by it is off by δ/(1 − δ) = m·step / (away·step − m·step). The differences here
    are exact: the points are close. Points that rounding has moved as far as they are apart say nothing.
    """
    step, middle = ahead - behind, ((ahead - at) + (behind - at)) / 2
    moved, whole = abs(float(np.sum(middle * step))), abs(float(np.sum(away * step)))
    assume(moved < whole)
    return moved / (whole - moved)


def with_code(case, code):
    layer = case.reference.transform[0]
    frozen = without_traces(code) @ layer.weight / float(np.max(np.abs(layer.weight))) ** 2
    return dataclasses.replace(case.reference, frozen_codebook=frozen)


def check(implementation, side, gradient, step, values, expected, off, case: Case):
    u, size = implementation.precision.unit_roundoff, case.x.size
    errors = [bounds.mean_square(size, u) * value for value in values]
    measured, error = share(arrived(gradient, step), step, values, errors)
    # a gradient that is not there has no error of its own: what is expected sets the scale
    error += (error + bounds.gamma(2 * size + 16, u) + off) * expected
    assert_within(f"{side}'s share", measured, expected, error)
