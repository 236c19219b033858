"""The cells of the matrix: every law that applies to a mutant, run on it up to its first failure."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from studies.kill_matrix.plain_tools import plain
from vq_reference.testing.interface.subjects import NotApplicable
from vq_reference.testing.laws.registry import laws
from vq_reference.testing.mutants import MUTANTS, implementation_of_mutant
from vq_reference.testing.mutants.kill import first_failure, shrunk_size

# laws that cost seconds on every mutant come last
SLOW = ("compiled.mask", "compiled.reply", "compiled.state", "ema.shrinkage")
PLAIN, SHRUNK = "plain tools", "shrunk"


class Job(NamedTuple):
    """One thing to find out about a mutant. what: a law's id, PLAIN or SHRUNK."""

    mutant: str
    what: str


@dataclass
class Row:
    """What is known of one mutant.

    mark: of the fault, so that what was found of another one of that name is not used. cells: law → the example that it
    failed on first, counted from 1, or 0 where it held, and the mark of the law. shrunk: tokens and dimensions of the
    smallest counterexample of the law that the mutant names, None where x is not drawn. plain: see `plain_tools`.
    """

    mark: str
    cells: dict[str, tuple[int, str]] = field(default_factory=dict)
    shrunk: tuple[int, int] | None = None
    plain: dict[str, str] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)

    @property
    def killers(self) -> dict[str, int]:
        """Law → example of its first failure, the fewest first."""
        found = {law: examples for law, (examples, _) in self.cells.items() if examples}
        return dict(sorted(found.items(), key=lambda item: (item[1], item[0])))


def jobs() -> Iterator[Job]:
    """Yield all there is to find out, what every mutant needs first."""
    catalogue = laws()
    for mutant in MUTANTS.values():
        yield Job(mutant.name, mutant.killed_by)
    for what in (PLAIN, SHRUNK):
        yield from (Job(name, what) for name in MUTANTS)
    lacking = {name: implementation_of_mutant(name).lacks for name in MUTANTS}
    for law in sorted(catalogue.values(), key=lambda law: (law.id in SLOW, law.id)):
        for mutant in MUTANTS.values():
            if law.id != mutant.killed_by and not lacking[mutant.name](law.needs):
                yield Job(mutant.name, law.id)


def do(job: Job) -> tuple[Job, Any]:
    """Find it out; returns what `record` takes. None for a law that turns out not to apply."""
    tested = implementation_of_mutant(job.mutant)
    if job.what == PLAIN:
        return job, plain(job.mutant)
    catalogue = laws()
    if job.what == SHRUNK:
        return job, shrunk_size(catalogue[MUTANTS[job.mutant].killed_by], tested)
    try:
        failure = first_failure(catalogue[job.what], tested)
    except NotApplicable:
        return job, None
    return job, failure.examples if failure else 0


def record(path: Path, job: Job, found: Any) -> None:
    """Add a line to the file, whole or not at all."""
    line = {"mutant": job.mutant, "mark": mark_of_mutant(job.mutant), "what": job.what, "found": found}
    if job.what not in (PLAIN, SHRUNK):
        line["law"] = mark_of_law(job.what)
    with path.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(line) + "\n")


def load(path: Path) -> dict[str, Row]:
    """Return what the file knows of the mutants there are; what was found of changed laws and faults is left out."""
    catalogue = laws()
    rows = {name: Row(mark_of_mutant(name)) for name in MUTANTS}
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        known = json.loads(line)
        row, what, found = rows.get(known["mutant"]), known["what"], known["found"]
        if row is None or row.mark != known["mark"]:
            continue
        if what == PLAIN:
            row.plain = found
        elif what == SHRUNK:
            row.shrunk = None if found is None else (found[0], found[1])
        elif what not in catalogue or known["law"] != mark_of_law(what):
            continue
        elif found is not None:
            row.cells[what] = (found, known["law"])
        row.done.add(what)
    return rows


def tidy(path: Path, rows: dict[str, Row]) -> None:
    """Write the file anew, sorted, with what `load` took of it."""
    kept = {}
    for line in path.read_text("utf-8").splitlines():
        known = json.loads(line)
        row = rows.get(known["mutant"])
        if row and row.mark == known["mark"] and known["what"] in row.done:
            kept[known["mutant"], known["what"]] = line
    path.write_text("".join(line + "\n" for _, line in sorted(kept.items())), encoding="utf-8")


def mark_of_mutant(name: str) -> str:
    """Return a few letters that change when the fault does."""
    mutant = MUTANTS[name]
    return _mark(mutant.module, mutant.replace, mutant.by)


def mark_of_law(law: str) -> str:
    """Return a few letters that change when the law's own function does."""
    return _mark(inspect.getsource(laws()[law].check))


def _mark(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:8]
