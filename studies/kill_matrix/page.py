"""The page of the kill matrix, made from its data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from statistics import median

from studies.kill_matrix.cells import Row, jobs
from studies.kill_matrix.plain_tools import KILLS, REJECTS_RIGHT
from vq_reference.testing.laws.registry import laws
from vq_reference.testing.mutants import MUTANTS

HEAD = """# Kill matrix

Every mutant is right code with one fault put in on purpose. Here each law that applies is run on each mutant, with the
default profile and its fixed examples, up to the first failure. Made by `python -m studies.kill_matrix`,
which computes what is missing; the data are in `data/kill-matrix.jsonl`.

"""
PLAIN = """
## Plain tools

The same mutants before what a developer would use today. *rejects right code*: the tool objects to the code without
the fault as well, so that its objection says nothing.

| tool | kills | passes | rejects right code |
|---|---|---|---|
"""
TABLE = """
## Mutants

*example*: of the law that the mutant names, the first that fails. *shrunk*: tokens × dimensions of the smallest input
that hypothesis then finds; – where the law draws no input x of its own. *also*: other laws and their first failing
example.

| mutant | killed by | example | shrunk | also |
|---|---|---|---|---|
"""
LAWS = """
## Laws

| law | mutants that it kills | of those that it was run on |
|---|---|---|
"""


def page(rows: Mapping[str, Row]) -> str:
    """Return the page in Markdown."""
    return HEAD + "\n".join(_summary(rows)) + PLAIN + _plain(rows) + TABLE + _table(rows) + LAWS + _laws(rows)


def _summary(rows: Mapping[str, Row]) -> Iterator[str]:
    known = sum(len(row.done) for row in rows.values())
    alive = [name for name, row in rows.items() if not row.killers]
    killed = {law for row in rows.values() for law in row.killers}
    idle = [law for law in laws() if law not in killed]
    first = [
        row.cells[MUTANTS[name].killed_by][0] for name, row in rows.items() if MUTANTS[name].killed_by in row.cells
    ]
    sizes = [row.shrunk for row in rows.values() if row.shrunk]
    small = sum(tokens <= 2 and dim <= 3 for tokens, dim in sizes)
    total = sum(1 for _ in jobs())
    yield f"- {len(rows)} mutants, {len(laws())} laws; {known} of {total} results are known."
    yield f"- Mutants that no law kills: {', '.join(alive) or 'none'}."
    yield f"- Laws that kill no mutant: {', '.join(idle) or 'none'}."
    if first:
        within = sum(0 < example <= 10 for example in first)
        yield (
            f"- Of the law that a mutant names, the first failing example is number {median(first):g} in the median, "
            f"{max(first)} at most; {within} of {len(first)} fail within ten."
        )
    if sizes:
        tokens, dims = (median(size[i] for size in sizes) for i in (0, 1))
        yield (
            f"- Shrunk inputs: {tokens:g} tokens × {dims:g} dimensions in the median; {small} of {len(sizes)} are one "
            "or two tokens in at most three dimensions."
        )


def _plain(rows: Mapping[str, Row]) -> str:
    told = [row.plain for row in rows.values() if row.plain]
    lines = []
    for tool in told[0] if told else ():
        counted = Counter(found[tool] for found in told)
        lines.append(
            f"| {tool} | {counted[KILLS]} | {len(told) - counted[KILLS] - counted[REJECTS_RIGHT]} "
            f"| {counted[REJECTS_RIGHT]} |"
        )
    any_tool = sum(KILLS in found.values() for found in told)
    killed = sum(bool(rows[name].killers) for name in rows if rows[name].plain)
    lines += [f"| all of these together | {any_tool} | {len(told) - any_tool} | |"]
    lines += [f"| the laws | {killed} | {len(told) - killed} | |"]
    return "\n".join(lines) + "\n"


def _table(rows: Mapping[str, Row]) -> str:
    lines = []
    for name, row in rows.items():
        law = MUTANTS[name].killed_by
        example = str(row.cells[law][0] or "survives") if law in row.cells else "not run"
        shrunk = "{} × {}".format(*row.shrunk) if row.shrunk else "–"
        others = ", ".join(f"`{other}` {n}" for other, n in row.killers.items() if other != law)
        lines.append(f"| {name} | `{law}` | {example} | {shrunk} | {others} |")
    return "\n".join(lines) + "\n"


def _laws(rows: Mapping[str, Row]) -> str:
    lines = []
    for law in laws():
        run = [row for row in rows.values() if law in row.cells]
        lines.append(f"| `{law}` | {sum(law in row.killers for row in run)} | {len(run)} |")
    return "\n".join(lines) + "\n"
