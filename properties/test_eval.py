"""Evaluation: the same codes; the loss and the gradients as in training, or as declared.

That eval gives no loss, or its output no gradient, is a convention: declared, never a defect.
"""

import dataclasses

import numpy as np

from vq_reference import estimators
from vq_reference.testing.interface.errors import DeclarationContradicted
from vq_reference.testing.interface.implementation import Call, Cotangent
from vq_reference.testing.interface.subjects import TRAINED, cotangents
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds
from vq_reference.testing.laws.expected.commitment_loss import arrived, loss_of, output_at_codes
from vq_reference.testing.laws.expected.same_answer import assert_nothing_is_shared
from vq_reference.testing.laws.law import law
from vq_reference.testing.laws.strategies.simvq_cases import cases

USER = "what a user of any layer relies on"
EVAL = {"indices", "eval"}
EVALUATING = Call(training=False)


def backward_of_the_loss(implementation, case):
    """Return the answer in eval to a backward from the loss alone, and the closed forms for what it chose."""
    start = Cotangent(np.zeros_like(case.x), 1.0)
    answer = implementation.build(case.reference)(case.x, [start], EVALUATING)
    expected = loss_of(implementation, case, answer.indices)
    if implementation.eval_loss == "as training" and not answer.loss and expected.value > expected.value_bound:
        remedy = "declare 'zero' where that is meant"
        raise DeclarationContradicted("eval_loss", "'as training'", f"{answer.loss} in eval", remedy)
    return answer, expected


@law("eval.loss", level="must", source=USER, needs=EVAL | {"loss"}, case=cases())
def test_the_loss_in_eval_is_that_of_training_or_zero_as_declared(implementation, case):
    """In eval mode the loss has its declared value, as in training, or is zero where that is declared."""
    answer, expected = backward_of_the_loss(implementation, case)
    if implementation.eval_loss == "zero":
        assert_within("ℓ in eval", answer.loss or 0.0, 0.0, 0.0)
    else:
        assert_within("ℓ in eval", answer.loss, expected.value, expected.value_bound)


@law("eval.halves", level="must", source=USER, needs=EVAL | {"loss"}, case=cases())
def test_the_loss_in_eval_pulls_what_it_pulls_in_training(implementation, case):
    """In eval mode the loss has its declared gradients, as in training, or none where it is declared zero."""
    answer, expected = backward_of_the_loss(implementation, case)
    there = 0.0 if implementation.eval_loss == "zero" else 1.0
    gradients = answer.gradients[0]
    at_x = arrived(gradients.x, expected.at_x)
    assert_within("∂ℓ/∂x in eval", at_x, there * expected.at_x, there * expected.at_x_bound)
    if "codebook_gradient" in implementation.capabilities:
        at_codes = arrived(gradients.codebook, expected.at_codebook)
        assert_within("∂ℓ/∂E in eval", at_codes, there * expected.at_codebook, there * expected.at_codebook_bound)
    for name, actual in gradients.parameters.items():
        wanted, bound = expected.at_transform[name], expected.at_transform_bound[name]
        assert_within(f"∂ℓ/∂({name}) in eval", arrived(actual, wanted), there * wanted, there * bound)


@law("eval.gradient", level="must", source=USER, needs=EVAL | {"trains_input"}, case=cases())
def test_the_gradient_of_the_output_in_eval_is_the_declared_one(implementation, case):
    """In eval mode the output's gradient reaches input and codes as declared: as in training, or not at all."""
    u, g = implementation.precision.unit_roundoff, cotangents(case)
    declared = implementation.eval_estimator
    for trained in TRAINED:
        if f"estimator:{trained}" not in implementation.capabilities:
            continue
        reference = dataclasses.replace(case.reference, estimator=trained)
        answer = implementation.build(reference)(case.x, [Cotangent(g, 0.0)], EVALUATING)
        actual = arrived(answer.gradients[0].x, g)
        if declared == "as training" and not actual.any():
            remedy = "declare 'none' where that is meant"
            raise DeclarationContradicted("eval_estimator", f"{declared!r}, {trained}", "no gradient in eval", remedy)
        estimator = trained if declared == "as training" else declared
        q = case.codes[answer.indices]
        expected, _ = estimators.vjp(case.x, q, g, estimator)
        bound = bounds.estimator_gradient(case.x, q, g, estimator, u)
        assert_within(f"gradient at x in eval with {trained}", actual, expected, bound)
        if "codebook_gradient" in implementation.capabilities and estimator != "none":
            at_codes = arrived(answer.gradients[0].codebook, case.codes)
            wanted, limit = output_at_codes(implementation, case, answer.indices, g)
            assert_within(f"gradient at the codebook in eval with {trained}", at_codes, wanted, limit)


CHOICE = {"indices"}


@law("eval.aliased", level="should", source=USER, needs=CHOICE | {"state", "eval"}, case=cases())
def test_nothing_returned_in_eval_shares_memory_with_the_layer(implementation, case):
    """In eval mode too, changing in place what a call returned changes neither the layer nor its next answer."""
    assert_nothing_is_shared(implementation, case, EVALUATING)
