"""Many cases on many releases: one child process for all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping

from vq_reference.testing.cases.case import Case, decoded
from vq_reference.testing.cases.makers import in_numpy, reference
from vq_reference.testing.cases.measure import Fault, faults, measure
from vq_reference.testing.mutants import MUTANTS
from vq_reference.testing.releases import Release


def on_releases(jobs: Iterable[tuple[Release, Iterable[Case]]]) -> list[Mapping[str, list[Fault]]]:
    """Return, for each job, case id → its faults on that release.

    Raises RuntimeError with the child's last words where it gives no answer.
    """
    planned = [(release, list(cases)) for release, cases in jobs]
    asked = [
        {
            "distribution": release.distribution,
            "version": release.version,
            "path": str(release.path),
            "cases": [case.as_json() for case in cases],
        }
        for release, cases in planned
    ]
    done = subprocess.run(
        [sys.executable, "-m", "vq_reference.testing.cases.worker"],
        input=json.dumps(asked),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
    )
    if done.returncode:
        raise RuntimeError(f"no release was run: {done.stderr.strip().splitlines()[-1]}")
    answers = json.loads(done.stdout)
    return [
        {case.id: faults(case, decoded(answer[case.id])) for case in cases}
        for (_, cases), answer in zip(planned, answers, strict=True)
    ]


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
