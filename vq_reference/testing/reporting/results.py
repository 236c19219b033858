"""What a run is asked for, and what became of it: all that reports need to know of the runner."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vq_reference.testing.laws.law import PROFILES
from vq_reference.testing.laws.verdict import Account, Outcome, Verdict


@dataclass(frozen=True)
class Plan:
    """What is run: the target's name, which laws, how thoroughly, and in which environment.

    environment: of the child; it decides which release of a package is found first. limit: seconds that one law may
    take, None for what its number of examples should need. device, dtype: where and in what the target computes, as
    in torch; empty for what its adapter does by itself.
    release: (package, version) that the environment is to put first; a verdict on another one is no verdict.
    called: the target as its user wrote it, where that is not `target`. folder: where its own modules are found; the
    child runs in a folder of its own.
    """

    target: str
    laws: tuple[str, ...]
    profile: str = "default"
    seed: int | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    limit: float | None = None
    device: str = ""
    dtype: str = ""
    release: tuple[str, str] | None = None
    called: str = ""
    folder: str = ""

    @property
    def seconds_for_a_law(self) -> float:
        """How long one law may take: two minutes, and ten times that for ten times the default's examples."""
        usual = 120.0 * max(1.0, PROFILES[self.profile] / PROFILES["default"])
        return usual if self.limit is None else self.limit


@dataclass(frozen=True)
class Result:
    """What became of a plan: the versions that the target consists of, and one outcome for each law, in planned order.

    versions: package → version; empty where the target could not be made.
    """

    plan: Plan
    versions: Mapping[str, str]
    outcomes: Sequence[Outcome]

    @property
    def never_made(self) -> str:
        """Why the target could not be made, empty where it was: then it has no versions, and no law was run."""
        lost = not self.versions and all(outcome.verdict is Verdict.NOT_RUN for outcome in self.outcomes)
        return self.outcomes[0].message if lost and self.outcomes else ""

    @property
    def account(self) -> Account:
        """The plan's laws, and what became of them."""
        return Account(self.plan.laws, self.outcomes)
