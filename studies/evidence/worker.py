"""One implementation and one task, in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vq_reference.testing.experiments.issue_177.measured import PACKAGE, Measured, implementation
from vq_reference.testing.experiments.issue_177.static import BOTH
from vq_reference.testing.processes.own_process import in_own_process
from vq_reference.testing.releases.fetch import Release, fetch


def ask(release: str | None, task: str, settings: Sequence[dict[str, Any]]) -> Any:
    """Return what `task` answers to each of `settings` on a release, or on `vq_reference.nn`, in a process of its own.

    Raises whatever the task raises there.
    """
    fetched: Release | None = fetch(f"{PACKAGE}=={release}") if release else None
    subject = Measured(release or "reference", BOTH, trained=False, release=fetched)
    return in_own_process(_answers, subject, task, settings, release=fetched)


def _answers(subject: Measured, task: str, settings: Sequence[dict[str, Any]]) -> list[Any]:
    with implementation(subject) as SimVQ:
        return [_tasks()[task](SimVQ, **setting) for setting in settings]


def _tasks() -> dict[str, Any]:
    from studies.evidence import accuracy, estimator, silence, training

    return {
        "train": lambda SimVQ, **setting: training.train(SimVQ, training.Setting(**setting)),
        "rotation": estimator.rotation,
        "loss": estimator.loss,
        "accuracy": accuracy.errors,
        "silence": silence.tokens,
    }
