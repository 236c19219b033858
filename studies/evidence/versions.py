"""Which releases are safe: the laws of `vq_reference.properties` on each of a list of releases."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from vq_reference.testing.experiments.issue_177.measured import PACKAGE
from vq_reference.testing.laws.registry import laws
from vq_reference.testing.laws.verdict import Verdict
from vq_reference.testing.releases.fetch import Release, fetch
from vq_reference.testing.reporting.results import Plan
from vq_reference.testing.run.runner import run

#: Every release from the first SimVQ to 1.21.0, each tenth after it (1.32.0 is the seventh), and 1.23.4, which one in
#: ten passes over: its rotation cannot be called.
RELEASES = (
    *(f"1.20.{patch}" for patch in range(12)),
    "1.21.0",
    *("1.22.2", "1.22.14", "1.23.4", "1.23.5", "1.27.4", "1.27.15", "1.28.3", "1.32.0"),
)
TARGET, PROFILE = "lucidrains.SimVQ", "quick"


def measure(say: Callable[[str], None]) -> dict[str, Any]:
    """Run all laws on every release of `RELEASES`; return what broke on each, and what the laws say."""
    catalogue = laws()
    rows = []
    for number, release in enumerate(RELEASES, 1):
        say(f"laws on {release}, {number} of {len(RELEASES)}")
        rows.append(_row(fetch(f"{PACKAGE}=={release}"), tuple(catalogue)))
    broken = {law for row in rows for law in (*row["must"], *row["should"])}
    return {
        "target": TARGET,
        "profile": PROFILE,
        "laws": len(catalogue),
        "levels": dict(Counter(law.level for law in catalogue.values())),
        "sentences": {law: catalogue[law].sentence for law in sorted(broken)},
        "releases": rows,
    }


def _row(release: Release, names: tuple[str, ...]) -> dict[str, Any]:
    """Return the account of one release. A law that crashed, or broke as expected, counts with those that broke.

    unusable: where more than half of the laws crashed or could not begin, what most of them ended with. Then no law is
    named as broken: a module that cannot be called says nothing about any of them.
    """
    plan = Plan(TARGET, names, PROFILE, environment=release.environment())
    outcomes = run(plan, 1, lambda _: None).outcomes
    lost = [o for o in outcomes if o.verdict in (Verdict.CRASHED, Verdict.NOT_RUN)]
    row: dict[str, Any] = {
        "release": release.version,
        "account": dict(Counter(o.verdict.value for o in outcomes)),
        "must": [],
        "should": [],
        "unusable": "",
    }
    if 2 * len(lost) > len(outcomes):
        (ending, _), *_ = Counter(o.message for o in lost).most_common(1)
        errors = re.findall(r"\w+Error: [^\n)]+", " ".join(ending.split()))
        return {**row, "unusable": (errors or ending.splitlines())[-1]}
    for outcome in outcomes:
        if outcome.verdict in (Verdict.BROKEN, Verdict.EXPECTED, Verdict.CRASHED):
            row[outcome.level].append(outcome.law)
    return row
