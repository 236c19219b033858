"""Every implementation measured with every estimator, one process for each implementation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rich.progress import Progress

from vq_reference.testing.own_process import in_own_process
from vq_reference.testing.reproduce.dynamic import Run
from vq_reference.testing.reproduce.static import CODEBOOK_ONLY, Row, case, expected
from vq_reference.testing.reproduce.subject import Subject
from vq_reference.testing.reproduce.worker import answer

ESTIMATORS = ("rotation", "straight-through")
#: Two runs side by side on one thread each are faster here than one run on two threads.
PROCESSES = 2


class CouldNotRun(Exception):
    """A child process gave no answer."""


def measure(subjects: Sequence[Subject], seeds: Sequence[int], progress: Progress) -> tuple[list[Row], list[Run]]:
    """Return the static rows of all subjects and the training runs of those that are trained.

    Raises CouldNotRun with the last message of the first child process that failed.
    """
    mse = expected(case(), CODEBOOK_ONLY).loss
    bar = progress.add_task("measure and train", total=len(subjects))
    rows, runs = [], []
    with ThreadPoolExecutor(PROCESSES) as pool:
        # The long jobs first, so that both processes have work to the end.
        order = sorted(subjects, key=lambda subject: not subject.trained)
        waiting = {subject.name: pool.submit(_answer, subject, seeds if subject.trained else ()) for subject in order}
        for future in waiting.values():
            future.add_done_callback(lambda _: progress.advance(bar))
        try:
            for subject in subjects:
                found = waiting[subject.name].result()
                rows += [Row(subject.name, mse=mse, **row) for row in found["static"]]
                runs += [Run(subject.name, **run) for run in found["runs"]]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return rows, runs


def _answer(subject: Subject, seeds: Sequence[int]) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """Return what the worker answers, in a process that finds this subject's release first."""
    try:
        return in_own_process(answer, subject, ESTIMATORS, seeds, release=subject.release)
    except Exception as error:
        remedy = "; what releases import comes with vq-reference[upstream]" if isinstance(error, ImportError) else ""
        raise CouldNotRun(f"{subject.name}: {type(error).__name__}: {error}{remedy}") from error
