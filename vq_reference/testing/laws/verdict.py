"""What became of a law on one implementation, and the account that a run gives: every planned law, exactly once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any


class Verdict(str, Enum):
    """The possible ends of a law."""

    HELD = "held"
    BROKEN = "broken"
    NOT_APPLICABLE = "not applicable"
    EXPECTED = "expected"
    CRASHED = "crashed"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Counterexample:
    """The smallest case found that breaks a law.

    inputs: a line for each array and number that was drawn. what: the quantity that was measured, and where: the index
    of its worst entry; expected, actual, bound, margin: of that entry; None where the law ended otherwise, as by an
    exception. derivations: the bounds that the law is made of. fits: ratios of actual to expected that fit in every
    entry, and what the input shows. script: source that shows the fault alone; no_script: why there is none. case: the
    input, exactly, as a pinned case holds it; None where the law asked for no layer of SimVQ, or called it in no
    ordinary way.
    """

    inputs: Sequence[str]
    what: str = ""
    where: Sequence[int] = ()
    expected: float | None = None
    actual: float | None = None
    bound: float | None = None
    margin: float | None = None
    derivations: Sequence[str] = ()
    fits: Sequence[str] = ()
    script: str = ""
    no_script: str = ""
    case: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Outcome:
    """One law on one implementation.

    level: "must" or "should". margins: the largest measured ÷ bound of each quantity, where the law held. message: what
    was expected and found, or why the law does not apply. lacks: what the law needs and the implementation does not
    declare, in words. examples: how many inputs it was tried on. expectation: why
    the law is expected to break; one that then holds fails the run as much as a broken one.
    """

    law: str
    level: str
    sentence: str
    verdict: Verdict
    message: str = ""
    margins: Mapping[str, float] = field(default_factory=dict)
    examples: int = 0
    seconds: float = 0.0
    expectation: str = ""
    counterexample: Counterexample | None = None
    lacks: Sequence[str] = ()

    @property
    def margin(self) -> float | None:
        """The largest of the margins, None where nothing was measured."""
        return max(self.margins.values(), default=None)

    @property
    def holds_unexpectedly(self) -> bool:
        """Whether the law was expected to break, and held."""
        return self.verdict is Verdict.HELD and bool(self.expectation)

    def fails(self, strict: bool) -> bool:
        """Say whether this outcome makes a run fail.

        A must-law that did not hold does, and with `strict` a should-law; a law that was never run, or that holds where
        it was expected to break, always does.
        """
        if self.verdict is Verdict.NOT_RUN or self.holds_unexpectedly:
            return True
        return self.verdict in (Verdict.BROKEN, Verdict.CRASHED) and (strict or self.level == "must")

    def as_json(self) -> dict[str, Any]:
        """Return plain data for json.dumps."""
        return {**asdict(self), "verdict": self.verdict.value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        """Return the outcome that `as_json` was made from."""
        found = data["counterexample"]
        made = {"verdict": Verdict(data["verdict"]), "counterexample": Counterexample(**found) if found else None}
        return cls(**{**data, **made})


@dataclass(frozen=True)
class Account:
    """The laws that were planned, and what became of each. The plan is kept apart, so that the two can differ.

    >>> print(Account(["rotation.proper"], [Outcome("rotation.proper", "must", "…", Verdict.HELD)]))
    1 planned = 1 held + 0 broken + 0 not applicable + 0 expected + 0 crashed + 0 not run
    """

    planned: Collection[str]
    outcomes: Sequence[Outcome]

    @property
    def unaccounted(self) -> list[str]:
        """Laws that were planned and have no outcome or several, or have an outcome and were not planned."""
        difference = Counter(self.planned)
        difference.subtract(outcome.law for outcome in self.outcomes)
        return sorted(law for law, times in difference.items() if times)

    @property
    def is_empty(self) -> bool:
        """Whether no law that was planned applies: what holds then holds of nothing."""
        return all(outcome.verdict is Verdict.NOT_APPLICABLE for outcome in self.outcomes)

    def fails(self, strict: bool) -> bool:
        """Say whether the run fails: by one of its outcomes, or because the account does not balance."""
        return bool(self.unaccounted) or any(outcome.fails(strict) for outcome in self.outcomes)

    def __str__(self) -> str:
        counted = Counter(outcome.verdict for outcome in self.outcomes)
        line = f"{len(self.planned)} planned = " + " + ".join(f"{counted[v]} {v.value}" for v in Verdict)
        return line + (f"; UNACCOUNTED: {', '.join(self.unaccounted)}" if self.unaccounted else "")
