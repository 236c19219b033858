"""What a run prints: families and laws with verdict and margin, then for each broken law what to act on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from vq_reference.testing.runner import Result
from vq_reference.testing.verdict import Outcome, Verdict

# a sign beside the colour, for those who see none
SIGNS = {
    Verdict.HELD: ("✓", "green"),
    Verdict.BROKEN: ("✗", "bold red"),
    Verdict.NOT_APPLICABLE: ("–", "dim"),
    Verdict.EXPECTED: ("e", "yellow"),
    Verdict.CRASHED: ("!", "bold magenta"),
    Verdict.NOT_RUN: ("?", "bold yellow"),
}
# the widest cell is "✓ 0.042", and two blanks stand between columns
CELL_WIDTH = 9


def show(console: Console, results: Mapping[str, Result], strict: bool) -> None:
    """Print the laws as rows and the runs as columns, then what broke, then one account for each run."""
    console.print(_table(results, console.width))
    for outcomes in _alike(results).values():
        console.print(_failure(outcomes))
    for name, result in results.items():
        failed = sum(outcome.fails(strict) for outcome in result.outcomes)
        demanded = "laws" if strict else "must-laws"
        end = f"[bold red]{failed} failed[/]" if failed else f"[green]all {demanded} held or were expected to break[/]"
        console.print(f"[bold]{name}[/]: {result.account}; {end}", soft_wrap=True, highlight=False)


def _table(results: Mapping[str, Result], width: int) -> Group:
    rows = {o.law: o.level for result in results.values() for o in result.outcomes}
    room = (width - max(map(len, rows), default=0) - len("should") - 4) // max(len(results), 1)
    labels = [name.replace(".", "\n", 1).replace(" ", "\n", 1) for name in results]
    numbered = any(len(line) + 2 > max(room, CELL_WIDTH) for label in labels for line in label.split("\n"))
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True)
    table.add_column("law", no_wrap=True)
    table.add_column("level", no_wrap=True)
    for i, label in enumerate(labels, 1):
        table.add_column(str(i) if numbered else label, no_wrap=True)
    cells = {(name, o.law): _cell(o) for name, result in results.items() for o in result.outcomes}
    family = ""
    for law, level in sorted(rows.items()):
        if family and law.split(".")[0] != family:
            table.add_section()
        family = law.split(".")[0]
        table.add_row(law, level, *(cells.get((name, law), Text("")) for name in results))
    seen = {o.verdict for result in results.values() for o in result.outcomes}
    legend = "   ".join(f"{sign} {verdict.value}" for verdict, (sign, _) in SIGNS.items() if verdict in seen)
    names = [Text(f"{i}  {name}") for i, name in enumerate(results, 1)] if numbered else []
    return Group(*names, table, Text(f"{legend}   number: largest measured ÷ bound", style="dim"), Text(""))


def _cell(outcome: Outcome) -> Text:
    sign, style = SIGNS[outcome.verdict]
    if outcome.holds_unexpectedly:
        return Text(f"{sign} stale", style="bold red")
    if outcome.verdict is Verdict.HELD:
        return Text(f"{sign} {outcome.margin:.2g}" if outcome.margin else sign, style=style)
    return Text(sign, style="yellow" if outcome.level == "should" and outcome.verdict is Verdict.BROKEN else style)


def _alike(results: Mapping[str, Result]) -> dict[tuple[str, ...], list[tuple[str, Outcome]]]:
    """Group what is worth a word by what it looks like: one block for the same fault on several releases."""
    groups: dict[tuple[str, ...], list[tuple[str, Outcome]]] = {}
    for name, result in results.items():
        for outcome in result.outcomes:
            if outcome.verdict is Verdict.NOT_RUN:
                groups.setdefault((outcome.verdict.value, name, outcome.message), []).append((name, outcome))
            elif outcome.verdict not in (Verdict.HELD, Verdict.NOT_APPLICABLE) or outcome.holds_unexpectedly:
                key = outcome.law, outcome.verdict.value, outcome.expectation or outcome.message
                groups.setdefault(key, []).append((name, outcome))
    return groups


def _failure(alike: Sequence[tuple[str, Outcome]]) -> RenderableType:
    outcome = alike[0][1]
    sign, style = SIGNS[outcome.verdict]
    names = ", ".join(dict.fromkeys(name for name, _ in alike))
    if outcome.verdict is Verdict.NOT_RUN:
        head = Text.assemble((f"{sign} {len(alike)} laws not run", style), f" on {names}")
        return Group(head, Padding(Text(outcome.message), (0, 0, 1, 2)))
    head = Text.assemble((f"{sign} {outcome.law}", style), f" ({outcome.level}) on {names}")
    lines: list[RenderableType] = [Text(outcome.sentence), Text(outcome.message)]
    if outcome.expectation:
        holds = "it holds: take it off the list of expectations" if outcome.holds_unexpectedly else ""
        lines = [Text(outcome.sentence), Text(f"expected: {outcome.expectation}"), *([Text(holds)] if holds else [])]
    elif outcome.counterexample:
        lines.append(Text("smallest case found:", style="dim"))
        lines.append(Padding(Text(outcome.counterexample, style="dim"), (0, 0, 0, 2)))
    return Group(head, Padding(Group(*lines), (0, 0, 1, 2)))
