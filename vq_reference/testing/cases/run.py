"""Many cases on many releases, each release in a process of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vq_reference.testing.cases.answers import Fault, Measured, faults, measure
from vq_reference.testing.cases.case import PinnedCase
from vq_reference.testing.cases.gradient_replay import Replayed
from vq_reference.testing.cases.makers import in_numpy, reference
from vq_reference.testing.cases.worker import on_release
from vq_reference.testing.mutants import MUTANTS
from vq_reference.testing.processes.own_process import ProcessDied, Task, in_own_processes
from vq_reference.testing.releases.fetch import Release


def on_releases(jobs: Iterable[tuple[Release, Iterable[PinnedCase]]]) -> list[Mapping[str, list[Fault]]]:
    """Return, for each job, case id → its faults on that release."""
    planned = [(release, list(cases)) for release, cases in jobs]
    answers = _answers((release, cases, None) for release, cases in planned)
    return [
        {case.id: faults(case, answer[case.id]) for case in cases}
        for (_, cases), answer in zip(planned, answers, strict=True)
    ]


def replayed_on_releases(
    jobs: Iterable[tuple[Release, Mapping[str, str], Iterable[PinnedCase]]],
) -> list[Mapping[str, tuple[Measured, Replayed] | str]]:
    """Return, for each job, case id → what was measured on that release and what replay says; or why there is neither.

    A job names the dtype that each case is replayed in by its id.
    """
    return _answers((release, list(cases), dtypes) for release, dtypes, cases in jobs)


def _answers(jobs: Iterable[tuple[Release, list[PinnedCase], Mapping[str, str] | None]]) -> list[Mapping[str, Any]]:
    calls = [Task(on_release, job, release=job[0]) for job in jobs]
    answers: list[Mapping[str, Any]] = [{}] * len(calls)
    for i, answer in in_own_processes(calls, at_once=2):
        if isinstance(answer, ProcessDied):
            answer = dict.fromkeys((case.id for case in calls[i].arguments[1]), "no answer")
        elif isinstance(answer, BaseException):
            raise answer
        answers[i] = answer
    return answers


def on_reference(case: PinnedCase) -> list[Fault]:
    """Return the faults of `vq_reference.nn` on the case: none, if it is as right as it claims."""
    return faults(case, measure(case, reference()))


def on_mutant(case: PinnedCase) -> list[Fault]:
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
