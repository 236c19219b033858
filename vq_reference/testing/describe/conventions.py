"""What an implementation does, measured at the border: loss and its routing, estimator, metric, state, shapes.

Nothing here judges. Two numbers are taken for the same where they differ by less than √u of the larger one: far above
rounding, which is a few u, and far below what tells conventions apart, which is of order 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from vq_reference import codebook, nearest, rotation
from vq_reference.arguments import Array
from vq_reference.estimators import Estimator
from vq_reference.simvq import SimVQ
from vq_reference.testing.interface.implementation import Answer, Call, Cotangent, Implementation, Layer, Wrapped
from vq_reference.testing.interface.stateful import bare
from vq_reference.testing.interface.subjects import Case
from vq_reference.testing.laws.expected.jacobian import jacobian

TOKENS = 12  # has factors, so that a layout of several leading dimensions has none of size 1


class Routing(NamedTuple):
    """A loss as three numbers: weight of its value, of the gradient at the codebook, of that at x.

    Each beside mean(x − q)² over all entries; None where there is no gradient to be seen, nan where it is no multiple.
    """

    value: float
    codebook: float | None
    encoder: float | None


def probe(implementation: Implementation, estimator: Estimator = "straight_through", tokens: int = TOKENS) -> Case:
    """Return a fixed case: codes of very different lengths, tokens that are not codes, all exact in float16."""
    dim, codebook_size = implementation.sizes or (4, 5)
    generator = np.random.default_rng(20)
    codes = generator.integers(1, 8, (codebook_size, dim)) * generator.choice([-0.125, 0.125], (codebook_size, dim))
    codes[::2] *= 4
    x = generator.integers(1, 8, (tokens, dim)) * generator.choice([-0.125, 0.125], (tokens, dim)) + 2.0**-5
    return Case(SimVQ(codes, (codebook.Layer(np.eye(dim)),), estimator), x)


def same(a: Array | float, b: Array | float, u: float) -> bool:
    """Whether a and b are the same but for rounding."""
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.shape != second.shape:
        return False
    scale = max(np.max(np.abs(first), initial=0.0), np.max(np.abs(second), initial=0.0))
    return bool(np.max(np.abs(first - second), initial=0.0) <= np.sqrt(u) * scale)


def routing(implementation: Implementation, case: Case, how: Call = Call()) -> Routing | None:
    """Return the loss's three numbers; None where it returns no loss."""
    answer = implementation.build(case.reference)(case.x, [Cotangent(np.zeros_like(case.x), 1.0)], how)
    if answer.loss is None or answer.indices is None:
        return None
    u = implementation.precision.unit_roundoff
    difference = case.x - case.codes[answer.indices]
    at_x = 2 * difference / difference.size
    at_codes = nearest.gather_vjp(answer.indices, -at_x, len(case.codes))
    gradients = answer.gradients[0]
    return Routing(
        answer.loss / float(np.mean(difference**2)),
        _multiple(gradients.codebook, at_codes, u),
        _multiple(gradients.x, at_x, u),
    )


def _multiple(gradient: Array | None, of: Array, u: float) -> float | None:
    if gradient is None:
        return None
    factor = float(np.vdot(gradient, of) / np.vdot(of, of))
    return factor if same(gradient, factor * of, u) or same(gradient, np.zeros_like(of), u) else float("nan")


def estimator(implementation: Implementation, case: Case, training: bool = True) -> str:
    """Return the name of the estimator that the Jacobian shows; "none" for J = 0, "other" for one that has no name."""
    jac, q = jacobian(_in_mode(implementation, training), case)
    u = implementation.precision.unit_roundoff
    turned = rotation.ratio(case.x, q)[:, :, None] * rotation.matrix(case.x, q)
    known = {
        "straight_through": np.broadcast_to(np.eye(case.x.shape[1]), jac.shape),
        "rotation": turned,
        "rotation, transposed": np.swapaxes(turned, 1, 2),
        "none": np.zeros_like(jac),
    }
    return next((name for name, expected in known.items() if same(jac, expected, u)), "other")


def sync_nu(implementation: Implementation, case: Case) -> float | None:
    """Return the share of the output's gradient that reaches the chosen codes; None where it is no multiple of it."""
    g = np.cos(np.arange(case.x.size)).reshape(case.x.shape)  # no two tokens have the same, no sum of them is 0
    answer = implementation.build(case.reference)(case.x, [Cotangent(g, 0.0)])
    if answer.indices is None or answer.gradients[0].codebook is None:
        return 0.0
    at_codes = nearest.gather_vjp(answer.indices, g, len(case.codes))
    share = _multiple(answer.gradients[0].codebook, at_codes, implementation.precision.unit_roundoff)
    return None if share is None or np.isnan(share) else share


def metric(implementation: Implementation, case: Case) -> Literal["euclidean", "cosine"] | None:
    """Return what the choice minimises; None where the case does not tell, or it is neither."""
    indices = implementation.build(case.reference)(case.x).indices
    euclidean = nearest.nearest(case.x, case.codes)
    directions = case.codes / np.linalg.norm(case.codes, axis=1, keepdims=True)
    cosine = np.argmax(case.x @ directions.T, axis=1)
    if indices is None or np.array_equal(euclidean, cosine):
        return None
    if np.array_equal(indices, euclidean):
        return "euclidean"
    return "cosine" if np.array_equal(indices, cosine) else None


def changed_state(implementation: Implementation, case: Case, training: bool = True) -> list[str]:
    """Return the names of parameters and buffers that one forward changes."""
    layer = implementation.build(case.reference)
    before = layer.state()
    layer(case.x, how=Call(training=training))
    after = layer.state()
    # what is not saved may come, as a cache does
    known = [name for name in after if name in before or name == bare(name)]
    return [bare(name) for name in known if name not in before or not np.array_equal(before[name], after[name])]


def in_eval(implementation: Implementation, case: Case) -> tuple[Answer, Answer]:
    """Return what training and eval give for the same input."""
    layer = implementation.build(case.reference)
    return layer(case.x), layer(case.x, how=Call(training=False))


def eval_as_training(implementation: Implementation, case: Case) -> bool:
    """Whether output and indices are the same in both modes."""
    u = implementation.precision.unit_roundoff
    training, evaluating = in_eval(implementation, case)
    pairs = zip(training[:2], evaluating[:2], strict=True)
    return all((a is None) == (b is None) and (a is None or b is None or same(a, b, u)) for a, b in pairs)


def no_loss(training: Answer, evaluating: Answer) -> bool:
    """Whether training gives a loss and eval none: None, or 0."""
    return bool(training.loss) and not evaluating.loss


def _in_mode(implementation: Implementation, training: bool) -> Implementation:
    """Return the implementation with its mode fixed."""

    def build(reference: SimVQ) -> Any:
        return _InMode(implementation.build(reference), training)

    return replace(implementation, build=build)


@dataclass(frozen=True)
class _InMode(Wrapped):
    """A layer that is called in one mode, whatever the call says."""

    layer: Layer
    training: bool

    def __call__(self, x: Array, cotangents: Sequence[Cotangent] = (), how: Call = Call()) -> Answer:
        return self.layer(x, cotangents, replace(how, training=self.training))
