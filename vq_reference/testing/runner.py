"""Run the laws in child processes, so that an implementation that hangs or kills its interpreter costs one law only.

Each child is a pytest over the installed laws; it writes a line when a law starts and when it ends. The parent plans,
reads, kills what exceeds its time, and starts a new child for what is left. Every planned law ends with a verdict.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vq_reference.testing.catalogue import PACKAGES, laws
from vq_reference.testing.verdict import Outcome, Verdict

TICK = 0.05
# the start of a child: interpreter, torch and the implementation's imports
START_LIMIT = 120.0

OnOutcome = Callable[[Outcome], None]


@dataclass(frozen=True)
class Plan:
    """What is run: the target's name, which laws, how thoroughly, and in which environment.

    environment: of the child; it decides which release of a package is found first. limit: seconds that one law may
    take.
    """

    target: str
    laws: tuple[str, ...]
    profile: str = "default"
    seed: int | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    limit: float = 120.0


class TargetFailed(Exception):
    """The child could not even begin. The message is the last thing that it said."""


def run(plan: Plan, jobs: int, on_outcome: OnOutcome) -> list[Outcome]:
    """Run the plan's laws in `jobs` children at a time; call `on_outcome` as each ends; return all, in planned order.

    Raises TargetFailed when no child gets as far as its first law.
    """
    catalogue = laws()
    waiting = [list(plan.laws[i::jobs]) for i in range(jobs)]
    ended: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory(prefix="vq-check-") as folder:
        active = [_Child(plan, share, Path(folder) / f"{i}") for i, share in enumerate(waiting) if share]
        try:
            while active:
                time.sleep(TICK)
                for child in list(active):
                    fate = child.fate()  # first: what a child said before its end is then all there to be read
                    for outcome in child.news():
                        ended[outcome.law] = outcome
                        on_outcome(outcome)
                    if fate:
                        active.remove(child)
                        left = [law for law in child.share if law not in ended]
                        if child.current is None and left:
                            raise TargetFailed(child.last_words())
                        if child.current is not None:
                            law = catalogue[child.current]
                            lost = Outcome(law.id, law.level, law.sentence, Verdict.CRASHED, fate)
                            ended[law.id] = lost
                            on_outcome(lost)
                            left.remove(law.id)
                        if left:
                            active.append(_Child(plan, left, child.folder.with_name(child.folder.name + "-next")))
        finally:
            for child in active:
                child.kill()
    never = (catalogue[law] for law in plan.laws if law not in ended)
    ended.update({law.id: Outcome(law.id, law.level, law.sentence, Verdict.NOT_RUN) for law in never})
    return [ended[law] for law in plan.laws]


class _Child:
    """One pytest process and what it has said so far."""

    def __init__(self, plan: Plan, share: Sequence[str], folder: Path) -> None:
        folder.mkdir()
        self.share, self.folder, self.limit = share, folder, plan.limit
        self.current: str | None = None
        self._since, self._seen = time.monotonic(), 0
        self._events = folder / "events"
        self._said = (folder / "said").open("w+", encoding="utf-8")
        self._process = subprocess.Popen(
            _command(plan, share, self._events),
            cwd=folder,
            # one thread: the cases are tiny, and the children share the machine
            env={**plan.environment, "OMP_NUM_THREADS": "1"},
            stdout=self._said,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )

    def news(self) -> Iterator[Outcome]:
        """Yield the outcomes since the last call."""
        for event in self._read():
            self._since = time.monotonic()
            if event["event"] == "started":
                self.current = event["law"]
            else:
                self.current = None
                yield Outcome.from_json(event["outcome"])

    def _read(self) -> list[dict[str, Any]]:
        if not self._events.exists():
            return []
        lines = self._events.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        fresh, self._seen = whole[self._seen :], len(whole)
        return [json.loads(line) for line in fresh]

    def fate(self) -> str | None:
        """Return None while the child lives, else what became of the law that it was at, if any."""
        code = self._process.poll()
        if code is None:
            limit = self.limit if self.current else START_LIMIT
            if time.monotonic() - self._since < limit:
                return None
            self.kill()
            return f"took more than {limit:g} s"
        return f"ended its interpreter ({'signal ' + str(-code) if code < 0 else 'exit code ' + str(code)})"

    def kill(self) -> None:
        """End the process, if it still runs."""
        self._process.kill()
        self._process.wait()

    def last_words(self) -> str:
        """Return the last lines that the child printed."""
        self._said.seek(0)
        return "\n".join(self._said.read().strip().splitlines()[-6:])


def _command(plan: Plan, share: Sequence[str], events: Path) -> list[str]:
    chosen = [option for law in share for option in ("--vq-law", law)]
    seed = [] if plan.seed is None else ["--vq-seed", str(plan.seed)]
    return [
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", "."),
        *("--pyargs", *PACKAGES, "--vq-target", plan.target, "--vq-profile", plan.profile, *seed),
        *("--vq-events", str(events), *chosen),
    ]
