"""Whether an implementation does what its adapter declares. A wrong declaration is not a broken law."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vq_reference.testing.describe import conventions
from vq_reference.testing.interface.errors import DeclarationContradicted
from vq_reference.testing.interface.implementation import Answer, Implementation
from vq_reference.testing.interface.subjects import TRAINED, Case


def check_declarations(implementation: Implementation) -> None:
    """Raise the first DeclarationContradicted that no law would judge: shapes, order, dtype, metric, eval mode.

    The weights of a loss and the estimator are laws' business: there a difference is more often a bug.
    `contradictions` has them too.

    >>> from vq_reference.testing.run.targets import implementation_of
    >>> check_declarations(implementation_of("reference.SimVQ"))
    """
    for contradiction in _structure(implementation):
        raise contradiction


def contradictions(implementation: Implementation) -> list[DeclarationContradicted]:
    """Return everything in which declared and found differ, weights of the loss and estimators as well."""
    return [*_structure(implementation), *_mathematics(implementation)]


def _structure(implementation: Implementation) -> Iterator[DeclarationContradicted]:
    has = implementation.capabilities
    case = conventions.probe(implementation)
    try:
        answer = implementation.build(case.reference)(case.x)
    except DeclarationContradicted as contradiction:
        yield contradiction
        return
    yield from _shapes(implementation, answer, case)
    if "indices" in has and answer.indices is not None:
        found = conventions.metric(implementation, case)
        if found is not None and found != implementation.metric:
            yield DeclarationContradicted("metric", repr(implementation.metric), repr(found), "by the chosen indices")
    if "eval" in has:
        yield from _evaluation(implementation, case)
    if "state" in has:
        changed = sorted(set(conventions.changed_state(implementation, case)) - implementation.state_changes)
        if changed:
            yield DeclarationContradicted(
                "state_changes",
                str(sorted(implementation.state_changes)),
                f"a forward in training changes {', '.join(changed)}",
                "give freeze=, or name them in state_changes=",
            )


def _evaluation(implementation: Implementation, case: Case) -> Iterator[DeclarationContradicted]:
    """Yield what eval does otherwise than declared, where that is a convention: a wrong loss there is a law's."""
    if not conventions.eval_as_training(implementation, case):
        yield DeclarationContradicted(
            "eval_as_training", "True", "another output or index in eval than in training", "declare False"
        )
    has = implementation.capabilities
    if (
        "loss" in has
        and conventions.no_loss(*conventions.in_eval(implementation, case))
        and implementation.eval_loss != "zero"
    ):
        yield DeclarationContradicted("eval_loss", repr(implementation.eval_loss), "no loss in eval", "declare 'zero'")
    trained = next((e for e in TRAINED if f"estimator:{e}" in has), None)
    if trained and "indices" in has and implementation.eval_estimator == "as training":
        found = conventions.estimator(implementation, conventions.probe(implementation, trained), training=False)
        if found == "none":
            yield DeclarationContradicted("eval_estimator", "'as training'", "'none'", "by its Jacobian in eval")


def _shapes(implementation: Implementation, answer: Answer, case: Case) -> Iterator[DeclarationContradicted]:
    for name in ("indices", "loss"):
        if name in implementation.capabilities and getattr(answer, name) is None:
            yield DeclarationContradicted(f"{name}_at", "there", "None in training")
    if answer.output.shape != case.x.shape:
        yield DeclarationContradicted("output", f"{case.x.shape} tokens", f"shape {answer.output.shape}", "its layout")
        return
    form = answer.form
    if form is not None and "form" in implementation.capabilities:
        if form.indices_shape != form.indices_expected:
            yield DeclarationContradicted(
                "indices", f"{form.indices_expected}", f"{form.indices_shape}", "their layout"
            )
        if form.loss_shape != form.loss_expected:
            yield DeclarationContradicted("loss_shape", f"{form.loss_expected}", f"{form.loss_shape}")
        if form.output_dtype != implementation.precision.name:
            yield DeclarationContradicted("dtype", implementation.precision.name, f"an output of {form.output_dtype}")
    if answer.indices is not None and answer.indices.shape == (len(case.x),) and np.all(answer.indices >= 0):
        chosen = case.codes[answer.indices % len(case.codes)]
        u = implementation.precision.unit_roundoff
        if not conventions.same(answer.output, chosen, u) and conventions.same(
            _sorted(answer.output, u), _sorted(chosen, u), u
        ):
            yield DeclarationContradicted(
                "output and indices", "lying as x does", "the right codes in another order", "the layout of one of them"
            )


def _sorted(rows: np.ndarray, u: float) -> np.ndarray:
    """Return rows in order of their entries, to the digits in which rounding does not show."""
    return rows[np.lexsort(np.round(rows / np.sqrt(u)).T)]


def _mathematics(implementation: Implementation) -> Iterator[DeclarationContradicted]:
    has = implementation.capabilities
    u = implementation.precision.unit_roundoff
    for declared in ("straight_through", "rotation", "none"):
        if f"estimator:{declared}" in has and "indices" in has:
            found = conventions.estimator(implementation, conventions.probe(implementation, declared))
            if found != declared:
                yield DeclarationContradicted("estimator", repr(declared), repr(found), "by its Jacobian in training")
    if {"indices", "codebook_gradient"} <= has and any(f"estimator:{trained}" in has for trained in TRAINED):
        shown = conventions.sync_nu(implementation, conventions.probe(implementation))
        if shown is None or not conventions.same(1 + shown, 1 + implementation.sync_nu, u):
            found = "no multiple of the output's gradient" if shown is None else f"{shown:.6g}"
            yield DeclarationContradicted("sync_nu", f"{implementation.sync_nu}", found, "by the gradient at the codes")
    if "loss" in has and "indices" in has:
        case = conventions.probe(implementation)
        measured = conventions.routing(implementation, case)
        a, b = implementation.loss_weights(case.reference)
        scale = case.x.size if implementation.loss_reduction == "sum" else 1
        c = a + b if implementation.loss_value is None else implementation.loss_value(case.reference)
        if measured is not None:
            halves = {"codebook": measured.codebook or 0.0, "encoder": measured.encoder or 0.0}
            declared_halves = {"codebook": scale * a, "encoder": scale * b}
            if "codebook_gradient" not in has:
                del halves["codebook"], declared_halves["codebook"]
            if not conventions.same([*declared_halves.values()], [*halves.values()], u):  # type: ignore[arg-type]
                yield DeclarationContradicted("loss_weights", _words(declared_halves), _words(halves), "by gradients")
            if not conventions.same(scale * c, measured.value, u):
                yield DeclarationContradicted("loss_weights", f"value {scale * c:.6g}", f"value {measured.value:.6g}")


def _words(halves: dict[str, float]) -> str:
    return ", ".join(f"{name} half {weight:.6g}" for name, weight in halves.items())
