"""What became of a law on one implementation, and the account that a run gives: every planned law, exactly once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any


class Verdict(str, Enum):
    """The possible ends of a law."""

    HELD = "held"
    BROKEN = "broken"
    NOT_APPLICABLE = "not applicable"
    CRASHED = "crashed"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Outcome:
    """One law on one implementation.

    level: "must" or "should". margins: the largest measured ÷ bound of each quantity, where the law held. message: what
    was expected and found, or why the law does not apply. counterexample: the smallest input that breaks it, as text.
    """

    law: str
    level: str
    sentence: str
    verdict: Verdict
    message: str = ""
    counterexample: str = ""
    margins: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def margin(self) -> float | None:
        """The largest of the margins, None where nothing was measured."""
        return max(self.margins.values(), default=None)

    def fails(self, strict: bool) -> bool:
        """Say whether this outcome makes a run fail: a must-law that did not hold, and with `strict` a should-law."""
        good = self.verdict in (Verdict.HELD, Verdict.NOT_APPLICABLE)
        return not good and (strict or self.level == "must" or self.verdict is Verdict.NOT_RUN)

    def as_json(self) -> dict[str, Any]:
        """Return plain data for json.dumps."""
        return {**asdict(self), "verdict": self.verdict.value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        """Return the outcome that `as_json` was made from."""
        return cls(**{**data, "verdict": Verdict(data["verdict"])})


def account(outcomes: Iterable[Outcome]) -> str:
    """Return the closing line: planned = the sum of what became of them.

    >>> account([Outcome("rotation.proper", "must", "…", Verdict.HELD)])
    '1 planned = 1 held + 0 broken + 0 not applicable + 0 crashed + 0 not run'
    """
    counted = Counter(outcome.verdict for outcome in outcomes)
    return f"{sum(counted.values())} planned = " + " + ".join(f"{counted[v]} {v.value}" for v in Verdict)
