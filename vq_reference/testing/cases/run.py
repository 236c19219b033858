"""Many cases on many releases: one child process for all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from vq_reference.testing.cases.case import Case, decoded
from vq_reference.testing.cases.makers import in_numpy, reference
from vq_reference.testing.cases.measure import Fault, Measured, faults, measure
from vq_reference.testing.cases.replay import Replayed
from vq_reference.testing.mutants import MUTANTS
from vq_reference.testing.releases import Release


def on_releases(jobs: Iterable[tuple[Release, Iterable[Case]]]) -> list[Mapping[str, list[Fault]]]:
    """Return, for each job, case id → its faults on that release.

    Raises RuntimeError with the child's last words where it gives no answer.
    """
    planned = [(release, list(cases)) for release, cases in jobs]
    answers = _answers([_job(release, cases) for release, cases in planned])
    return [
        {case.id: faults(case, decoded(answer[case.id])) for case in cases}
        for (_, cases), answer in zip(planned, answers, strict=True)
    ]


def replayed_on_releases(
    jobs: Iterable[tuple[Release, Mapping[str, str], Iterable[Case]]],
) -> list[Mapping[str, tuple[Measured, Replayed] | str]]:
    """Return, for each job, case id → what was measured on that release and what replay says; or why there is neither.

    A job names the dtype that each case is replayed in by its id. Raises RuntimeError as `on_releases` does.
    """
    answers = _answers([{**_job(release, cases), "replay": dtypes} for release, dtypes, cases in jobs])
    return [
        {
            name: each if isinstance(each, str) else (decoded(each[0]), Replayed(*each[1]))
            for name, each in answer.items()
        }
        for answer in answers
    ]


def _job(release: Release, cases: Iterable[Case]) -> dict[str, Any]:
    return {
        "distribution": release.distribution,
        "version": release.version,
        "path": str(release.path),
        "cases": [case.as_json() for case in cases],
    }


def _answers(asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "vq_reference.testing.cases.worker"],
        input=json.dumps(asked),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
    )
    if done.returncode:
        raise RuntimeError(f"no release was run: {done.stderr.strip().splitlines()[-1]}")
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


def on_reference(case: Case) -> list[Fault]:
    """Return the faults of `vq_reference.nn` on the case: none, if it is as right as it claims."""
    return faults(case, measure(case, reference()))


def on_mutant(case: Case) -> list[Fault]:
    """Return the faults of the reference with the case's mutant in it."""
    if case.mutant is None:
        raise ValueError(f"case {case.id} names no mutant")
    mutant = MUTANTS[case.mutant]
    makers = reference() if mutant.module.startswith("vq_reference.nn.") else in_numpy()
    with mutant.applied():
        try:
            return faults(case, measure(case, makers))
        except Exception as error:
            return faults(case, f"{type(error).__name__}: {error}")
