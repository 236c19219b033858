"""What an output's gradient may and may not reach."""

import dataclasses

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from vq_reference import estimators
from vq_reference.testing.interface.errors import DeclarationContradicted
from vq_reference.testing.interface.implementation import Call, Cotangent
from vq_reference.testing.interface.subjects import EXTREME, OPPOSITE, TRAINED, cotangents
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds
from vq_reference.testing.laws.expected.commitment_loss import arrived, loss_of, output_at_codes
from vq_reference.testing.laws.law import law
from vq_reference.testing.laws.strategies.simvq_cases import cases

OORD = "van den Oord et al., arXiv 1711.00937, §3.2"
CHOICE = {"indices"}


def with_each_estimator(implementation, case):
    """Yield the estimators that the implementation trains with, each with the layer that has it."""
    for estimator in TRAINED:
        if f"estimator:{estimator}" in implementation.capabilities:
            yield estimator, dataclasses.replace(case.reference, estimator=estimator)


@law("gradient.vjp", level="must", source=OORD, needs=CHOICE | {"trains_input"}, case=cases(), seed=st.integers(0, 15))
def test_the_input_gets_the_estimators_gradient(implementation, case, seed):
    """The gradient at the output reaches the input as the estimator says: g for straight-through, λR'g for rotation."""
    u = implementation.precision.unit_roundoff
    g = cotangents(case, seed)
    for estimator, reference in with_each_estimator(implementation, case):
        answer = implementation.build(reference)(case.x, [Cotangent(g, 0.0)])
        q = case.codes[answer.indices]
        expected, _ = estimators.vjp(case.x, q, g, estimator)
        actual = arrived(answer.gradients[0].x, expected)
        bound = bounds.estimator_gradient(case.x, q, g, estimator, u)
        assert_within(f"gradient at x with {estimator}", actual, expected, bound)


@law(
    "gradient.linear",
    level="must",
    source="a derivative is linear",
    needs=CHOICE | {"trains_input"},
    case=cases(),
    seed=st.integers(1, 15),
    steps=st.sampled_from([1, 2, 4, -1]),
)
def test_the_input_gets_a_gradient_that_is_linear_in_the_outputs(implementation, case, seed, steps):
    """The gradient at the input is linear in that at the output, however large: nothing is clipped or normalised."""
    u = implementation.precision.unit_roundoff
    # in eighths of the range of exponents: up to numbers whose squares are not representable
    scale = 2.0 ** (steps * (int(np.frexp(implementation.precision.largest)[1]) - 1) // 8)
    one, other = cotangents(case), cotangents(case, seed)
    for estimator, reference in with_each_estimator(implementation, case):
        starts = [Cotangent(g, 0.0) for g in (one, other, one + other, scale * one)]
        answer = implementation.build(reference)(case.x, starts)
        q = case.codes[answer.indices]
        first, second, both, large = (arrived(gradients.x, one) for gradients in answer.gradients)
        assume(np.all(scale * np.max(np.abs(first)) <= implementation.precision.largest / 8))
        bound = [bounds.estimator_gradient(case.x, q, start.output, estimator, u) for start in starts[:3]]
        sum_bound = bound[0] + bound[1] + bound[2]
        assert_within(f"gradient at x of a sum with {estimator}", both, first + second, sum_bound)
        lost = bounds.estimator_underflow(case.x, q, implementation.precision.smallest_subnormal)
        # the bound is a multiple of ‖g‖, whose square would not be representable: it is scaled, too
        limit = 2 * scale * bound[0] + lost * (1 + scale)
        assert_within(f"gradient at x of a multiple with {estimator}", large, scale * first, limit)


@law("gradient.tokens", level="must", source="a layer acts on each token", needs=CHOICE, case=cases(), data=st.data())
def test_a_token_gets_no_gradient_from_another_tokens_output(implementation, case, data):
    """The Jacobian is block-diagonal over tokens: an output's gradient reaches its own token and no other."""
    token = data.draw(st.integers(0, len(case.x) - 1), label="token with a gradient")
    g = np.zeros_like(case.x)
    g[token] = cotangents(case)[token]
    at_x = implementation.build(case.reference)(case.x, [Cotangent(g, 0.0)]).gradients[0].x
    others = np.arange(len(case.x)) != token
    assert_within("gradient at the other tokens", arrived(at_x, g)[others], 0.0, 0.0)


@law("gradient.codebook", level="must", source=OORD, needs=CHOICE | {"codebook_gradient", "trains_input"}, case=cases())
def test_the_outputs_gradient_does_not_train_the_codebook(implementation, case):
    """The codebook learns from the loss: of the output's gradient its codes get nothing, or ν times it as declared."""
    g = cotangents(case)
    for estimator, reference in with_each_estimator(implementation, case):
        answer = implementation.build(reference)(case.x, [Cotangent(g, 0.0)])
        expected, bound = output_at_codes(implementation, case, answer.indices, g)
        at_codes = arrived(answer.gradients[0].codebook, case.codes)
        if implementation.sync_nu and not at_codes.any():
            raise DeclarationContradicted("sync_nu", f"{implementation.sync_nu}", f"none of it there with {estimator}")
        assert_within(f"gradient at the codebook with {estimator}", at_codes, expected, bound)


@law("gradient.sum", level="must", source="a derivative is linear", needs=CHOICE | {"loss"}, case=cases())
def test_gradients_of_output_and_loss_add_up(implementation, case):
    """Output and loss used together give the sum of the gradients that each gives alone."""
    u = implementation.precision.unit_roundoff
    g = cotangents(case)
    starts = [Cotangent(g, 1.0), Cotangent(g, 0.0), Cotangent(np.zeros_like(g), 1.0)]
    answer = implementation.build(case.reference)(case.x, starts)
    both, output, loss = (arrived(gradients.x, g) for gradients in answer.gradients)
    q = case.codes[answer.indices]
    of_output = bounds.estimator_gradient(case.x, q, g, case.reference.estimator, u)
    bound = u * (np.abs(output) + np.abs(loss)) + 2 * of_output
    assert_within("gradient at x", both, output + loss, bound + 2 * bounds.loss_gradient(loss, u))


@law(
    "gradient.finite",
    level="should",
    source="every gradient is a number",
    needs=CHOICE | {"trains_input"},
    case=cases(places=OPPOSITE + EXTREME),
)
def test_every_gradient_is_finite_for_every_finite_input(implementation, case):
    """Gradients stay finite at zero, tiny, huge and opposite inputs, for every estimator."""
    for estimator, reference in with_each_estimator(implementation, case):
        at_x = implementation.build(reference)(case.x, [Cotangent(cotangents(case), 0.0)]).gradients[0].x
        assert_within(f"finite gradient with {estimator}", np.isfinite(arrived(at_x, case.x)), 1.0, 0.0)


@law(
    "gradient.not_asked",
    level="must",
    source=OORD,
    needs=CHOICE | {"loss", "trained_codes"},
    case=cases(),
)
def test_the_codes_learn_whether_or_not_the_input_asks_for_a_gradient(implementation, case):
    """Codes and transform get the same gradient from an input that asks for none, as a frozen encoder's does."""
    layer = implementation.build(case.reference)
    start = [Cotangent(np.zeros_like(case.x), 1.0)]
    answers = [layer(case.x, start, Call(gradient=gradient)) for gradient in ("asked", "not asked")]
    assume(np.array_equal(answers[0].indices, answers[1].indices))
    asked, not_asked = (answer.gradients[0] for answer in answers)
    # each is off by no more than the closed form's bound, twice of which they may be apart
    closed = loss_of(implementation, case, answers[0].indices)
    for name, gradient in asked.parameters.items():
        bound = 2 * closed.at_transform_bound[name]
        assert_within(f"∂ℓ/∂{name}", arrived(not_asked.parameters[name], gradient), gradient, bound)
    if asked.codebook is not None:
        actual = arrived(not_asked.codebook, asked.codebook)
        assert_within("∂ℓ/∂E", actual, asked.codebook, 2 * closed.at_codebook_bound)
