"""Every implementation measured with every estimator, one process for each implementation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.progress import Progress

from vq_reference.testing.experiments.issue_177.dynamic import Run
from vq_reference.testing.experiments.issue_177.measure_one import answer
from vq_reference.testing.experiments.issue_177.measured import Measured
from vq_reference.testing.experiments.issue_177.static import CODEBOOK_ONLY, Row, case, expected
from vq_reference.testing.processes.own_process import Task, in_own_processes

ESTIMATORS = ("rotation", "straight-through")
#: Two runs side by side on one thread each are faster here than one run on two threads.
PROCESSES = 2


class CouldNotRun(Exception):
    """A child process gave no answer."""


def measure(subjects: Sequence[Measured], seeds: Sequence[int], progress: Progress) -> tuple[list[Row], list[Run]]:
    """Return the static rows of all subjects and the training runs of those that are trained.

    Raises CouldNotRun with the last message of the first child process that failed.
    """
    mse = expected(case(), CODEBOOK_ONLY).loss
    bar = progress.add_task("measure and train", total=len(subjects))
    # The long jobs first, so that both processes have work to the end.
    order = sorted(subjects, key=lambda subject: not subject.trained)
    calls = [Task(answer, (each, ESTIMATORS, seeds if each.trained else ()), each.release) for each in order]
    found: dict[str, Mapping[str, Sequence[Mapping[str, Any]]]] = {}
    for i, ended in in_own_processes(calls, at_once=PROCESSES):
        name = order[i].name
        if isinstance(ended, Exception):
            remedy = (
                "; what releases import comes with vq-reference[upstream]" if isinstance(ended, ImportError) else ""
            )
            raise CouldNotRun(f"{name}: {type(ended).__name__}: {ended}{remedy}") from ended
        found[name] = ended
        progress.advance(bar)
    rows = [Row(subject.name, mse=mse, **row) for subject in subjects for row in found[subject.name]["static"]]
    return rows, [Run(subject.name, **run) for subject in subjects for run in found[subject.name]["runs"]]
