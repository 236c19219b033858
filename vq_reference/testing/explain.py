"""What a law says, where it comes from, how near rounding may bring it, and what usually breaks it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator

from vq_reference.testing.derivation import bounds_of
from vq_reference.testing.known_bugs import KNOWN_BUGS
from vq_reference.testing.law import Law
from vq_reference.testing.mutants import MUTANTS, Mutant


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
    for bound in bounds_of(law.check):
        yield "bound", f"{bound.name}: {bound.derivation}"
    for mutant in _mutants(law):
        yield "likely cause", f"{mutant.why} ({mutant.name})"
        yield "remedy", f"{mutant.module} has `{mutant.replace}`, and not `{mutant.by}`"
    for bug in KNOWN_BUGS:
        if law.id in bug.looks:
            yield "known bug", str(bug)


def _mutants(law: Law) -> list[Mutant]:
    return [mutant for mutant in MUTANTS.values() if mutant.killed_by == law.id]
