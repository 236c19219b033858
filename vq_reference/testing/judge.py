"""One law on one implementation: the verdict, the same from every door."""

from __future__ import annotations

import time
import traceback

import numpy as np

from vq_reference.testing.adapters.implementation import Implementation
from vq_reference.testing.law import Law
from vq_reference.testing.verdict import Outcome, Verdict


def judge(law: Law, tested: Implementation, profile: str, seed: int | None) -> tuple[Outcome, Exception | None]:
    """Run one law on one implementation and return what became of it, with the exception where it did not hold."""
    missing = tested.lacks(law.needs)
    if missing:
        message = f"{tested.name} does not declare {', '.join(missing)}"
        return Outcome(law.id, law.level, law.sentence, Verdict.NOT_APPLICABLE, message), None
    begun = time.perf_counter()
    verdict, message, counterexample, margins = Verdict.HELD, "", "", {}
    failure: Exception | None = None
    try:
        margins = law.run(tested, profile, seed)
    except AssertionError as error:
        verdict, message, failure = Verdict.BROKEN, str(error).split("\n")[0], error
    except Exception as error:
        verdict, failure = Verdict.CRASHED, error
        message = traceback.format_exception_only(type(error), error)[0].strip().split("\n")[0]
    if failure is not None:
        with np.printoptions(threshold=40, edgeitems=2):
            counterexample = "\n".join(f"{k} = {v!r}" for k, v in getattr(failure, "drawn", {}).items())
    seconds = time.perf_counter() - begun
    return Outcome(law.id, law.level, law.sentence, verdict, message, counterexample, margins, seconds), failure
