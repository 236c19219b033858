"""What a law says, where it comes from, how near rounding may bring it, and what usually breaks it."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from vq_reference.testing.interface.subjects import NotApplicable
from vq_reference.testing.laws.bound_docs import noting
from vq_reference.testing.laws.law import Law
from vq_reference.testing.mutants import MUTANTS, Mutant
from vq_reference.testing.reporting.known_bugs import KNOWN_BUGS
from vq_reference.testing.run.targets import READY, implementation_of

# after which a law has used its bounds; the first is the smallest, such as one of zeros
EXAMPLES = 5
OURS = [name for name in READY if name.startswith("reference.")]


def explain(law: Law) -> Iterator[tuple[str, str]]:
    """Yield headings and texts about a law.

    The likely causes are the mutants that it is there to kill: each is a line of the reference changed on purpose, so
    that the remedy stands beside it, as the line that the reference has. Formula: what the law's family is about.
    """
    yield "sentence", law.sentence
    family = inspect.getdoc(sys.modules[law.check.__module__])
    if family:
        yield "formula", family.split("\n\n")[0].replace("\n", " ")
    yield "source", law.source
    fails = "breaking it fails a run" if law.level == "must" else "breaking it is shown, and fails a run with --strict"
    yield "level", f"{law.level}: {fails}"
    if law.needs:
        yield "needs", ", ".join(sorted(law.needs))
    for derivation, name in bounds_of(law).items():
        yield "bound", f"{name}: {derivation}"
    for mutant in _mutants(law):
        yield "likely cause", f"{mutant.why} ({mutant.name})"
        yield "remedy", f"{mutant.module} has `{mutant.replace}`, and not `{mutant.by}`"
    for bug in KNOWN_BUGS:
        if law.id in bug.looks:
            yield "known bug", str(bug)


def bounds_of(law: Law) -> dict[str, str]:
    """Return the bounds that the law uses on the first of our implementations that it applies to: derivation → name."""
    found: dict[str, str] = {}
    examples = itertools.count()

    @functools.wraps(law.check)
    def check(*given: Any, **drawn: Any) -> None:
        if next(examples) < EXAMPLES:
            with noting() as used:
                law.check(*given, **drawn)
            found.update(used)

    for name in OURS:
        tested = implementation_of(name)
        if not tested.lacks(law.needs):
            with suppress(NotApplicable):
                dataclasses.replace(law, check=check).run(tested, "quick")
                break
    return found


def _mutants(law: Law) -> list[Mutant]:
    return [mutant for mutant in MUTANTS.values() if mutant.killed_by == law.id]
