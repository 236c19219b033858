"""Run the laws in child processes, so that an implementation that hangs or kills its interpreter costs one law only.

Each child is a pytest over the installed laws; it writes a line when the target is made, when a law starts and when it
ends. The parent plans, reads, kills what exceeds its time, and starts a new child for what is left. Every planned law
ends with a verdict: a target that cannot even be imported leaves all of its laws not run, and the next target its turn.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from vq_reference.testing.laws.registry import PACKAGES, laws
from vq_reference.testing.laws.verdict import Outcome, Verdict
from vq_reference.testing.reporting.results import Plan, Result

TICK = 0.05
# the start of a child: interpreter, torch and the implementation's imports
START_LIMIT = 120.0

OnOutcome = Callable[[Outcome], None]


def run(plan: Plan, jobs: int, on_outcome: OnOutcome) -> Result:
    """Run the plan's laws in `jobs` children at a time; call `on_outcome` as each law ends."""
    catalogue = laws()
    versions: dict[str, str] = {}
    ended: dict[str, Outcome] = {}

    def end(outcome: Outcome) -> None:
        ended[outcome.law] = outcome
        on_outcome(outcome)

    def lose(law_id: str, verdict: Verdict, why: str) -> None:
        law = catalogue[law_id]
        end(Outcome(law.id, law.level, law.sentence, verdict, why))

    def attend(child: _Child) -> list[str]:
        """Take in what the child has said; return the laws that another child has to begin with."""
        fate = child.fate()  # first: what a child said before its end is then all there to be read
        for outcome in child.news():
            end(outcome)
        versions.update(child.versions)
        if not fate:
            return []
        child.kill()
        if child.current is not None:
            lose(child.current, Verdict.CRASHED, fate)
        left = [law for law in child.share if law not in ended]
        if len(left) < len(child.share):
            return left
        for law in left:  # it did not get as far as a single law, and neither would the next one
            lose(law, Verdict.NOT_RUN, f"{plan.target} {fate}: {child.last_words()}")
        return []

    with tempfile.TemporaryDirectory(prefix="vq-check-") as folder, ExitStack() as children:

        def start(share: Sequence[str]) -> _Child:
            child = _Child(plan, share, Path(tempfile.mkdtemp(dir=folder)))
            children.callback(child.kill)
            return child

        active = [start(share) for i in range(jobs) if (share := plan.laws[i::jobs])]
        while active:
            time.sleep(TICK)
            active += [start(left) for child in active if (left := attend(child))]
            active = [child for child in active if child.alive]
    package, version = plan.release or ("", "")
    if versions.get(package, version) != version:
        for law in plan.laws:
            lose(law, Verdict.NOT_RUN, f"{package} {versions[package]} was imported, and {version} was asked for")
    return Result(plan, versions, [ended[law] for law in plan.laws if law in ended])


class _Child:
    """One pytest process and what it has said so far."""

    def __init__(self, plan: Plan, share: Sequence[str], folder: Path) -> None:
        self.share, self.folder, self.limit = share, folder, plan.seconds_for_a_law
        self.alive = True
        self.current: str | None = None
        self.versions: dict[str, str] = {}
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
            # a group of its own: what the target may have started ends with it
            start_new_session=True,
        )

    def news(self) -> Iterator[Outcome]:
        """Yield the outcomes since the last call."""
        for event in self._read():
            self._since = time.monotonic()
            if event["event"] == "started":
                self.current = event["law"]
            elif event["event"] == "made":
                self.versions = event["versions"]
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
            return f"took more than {limit:g} s" + (", its --limit" if self.current else "")
        return f"ended its interpreter ({'signal ' + str(-code) if code < 0 else 'exit code ' + str(code)})"

    def kill(self) -> None:
        """End the process and what it started, if it still runs."""
        self.alive = False
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._said.close()

    def last_words(self) -> str:
        """Return the last line that the child printed."""
        said = (self.folder / "said").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return said[-1] if said else "it said nothing"


def _command(plan: Plan, share: Sequence[str], events: Path) -> list[str]:
    chosen = [option for law in share for option in ("--vq-law", law)]
    given = {"--vq-device": plan.device, "--vq-dtype": plan.dtype, "--vq-called": plan.called}
    given["--vq-folder"] = plan.folder
    options = [word for name, value in given.items() if value for word in (name, value)]
    options += [] if plan.seed is None else ["--vq-seed", str(plan.seed)]
    return [
        *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", "."),
        # pytest's other modes put the folder that vq_reference lies in first on the path, before the release under test
        "--import-mode=importlib",
        *("-q", "--tb=no", "--show-capture=no"),
        *("--pyargs", *PACKAGES, "--vq-target", plan.target, "--vq-profile", plan.profile, *options),
        *("--vq-events", str(events), *chosen),
    ]
