"""One law on one implementation: the verdict, the same from every door."""

from __future__ import annotations

import itertools
import platform
import time
import traceback

import numpy as np

from vq_reference.testing.interface.implementation import Implementation
from vq_reference.testing.interface.subjects import NotApplicable
from vq_reference.testing.laws.law import Law
from vq_reference.testing.laws.verdict import Outcome, Verdict
from vq_reference.testing.recording.calls import Border
from vq_reference.testing.reporting.counterexample import examine

LONGEST = 1000  # what an exception says may be megabytes


def judge(law: Law, tested: Implementation, profile: str, seed: int | None) -> tuple[Outcome, Exception | None]:
    """Run one law on one implementation and return what became of it, with the exception where it did not hold."""
    missing = tested.lacks(law.needs)
    if missing:
        message = f"{tested.name} does not declare {', '.join(missing)}"
        return Outcome(law.id, law.level, law.sentence, Verdict.NOT_APPLICABLE, message, lacks=missing), None
    begun, border, examples = time.perf_counter(), Border(), itertools.count()
    verdict, message, margins = Verdict.HELD, "", {}
    failure: Exception | None = None

    def begin() -> None:
        next(examples)
        border.begin()

    try:
        margins = law.run(border.watch(tested), profile, seed, on_example=begin)
    except NotApplicable as error:
        verdict, message = Verdict.NOT_APPLICABLE, str(error)
    except AssertionError as error:
        verdict, message, failure = Verdict.BROKEN, str(error).split("\n")[0][:LONGEST], error
    except Exception as error:
        verdict, failure = Verdict.CRASHED, error
        message = traceback.format_exception_only(type(error), error)[0].strip().split("\n")[0][:LONGEST]
    found = None if failure is None else examine(law, tested, border, failure, versions_of(tested))
    seconds = time.perf_counter() - begun
    outcome = Outcome(
        law=law.id,
        level=law.level,
        sentence=law.sentence,
        verdict=verdict,
        message=message,
        margins=margins,
        examples=next(examples),
        seconds=seconds,
        counterexample=found,
    )
    return outcome, failure


def versions_of(tested: Implementation) -> dict[str, str]:
    """Return the versions that a verdict is about: the implementation's packages, NumPy and Python."""
    return {**tested.versions, "numpy": np.__version__, "python": platform.python_version()}
