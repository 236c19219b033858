"""Every implementation measured with every estimator, one process for each implementation."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rich.progress import Progress

from vq_reference.testing.reproduce.dynamic import Run
from vq_reference.testing.reproduce.static import CODEBOOK_ONLY, Row, case, expected
from vq_reference.testing.reproduce.subject import Subject

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
                answer = waiting[subject.name].result()
                rows += [Row(subject.name, mse=mse, **row) for row in answer["static"]]
                runs += [Run(subject.name, **run) for run in answer["runs"]]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return rows, runs


def _answer(subject: Subject, seeds: Sequence[int]) -> Any:
    """Return what the worker answers, in a process that finds this subject's release first."""
    done = subprocess.run(
        [sys.executable, "-m", "vq_reference.testing.reproduce.worker"],
        input=json.dumps({**subject.job(), "estimators": ESTIMATORS, "seeds": list(seeds)}),
        env=subject.release.environment() if subject.release else None,
        capture_output=True,
        encoding="utf-8",
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        remedy = "; what releases import comes with vq-reference[upstream]" if "No module named" in last[0] else ""
        raise CouldNotRun(f"{subject.name}: {last[0]}{remedy}")
    return json.loads(done.stdout)
