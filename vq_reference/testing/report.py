"""What a run prints: families and laws with verdict and margin, then for each broken law what to act on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from vq_reference.testing.verdict import Outcome, Verdict, account

# a sign beside the colour, for those who see none
SIGNS = {
    Verdict.HELD: ("✓", "green"),
    Verdict.BROKEN: ("✗", "bold red"),
    Verdict.NOT_APPLICABLE: ("–", "dim"),
    Verdict.CRASHED: ("!", "bold magenta"),
    Verdict.NOT_RUN: ("?", "bold yellow"),
}


def show(console: Console, columns: Mapping[str, Sequence[Outcome]], strict: bool) -> None:
    """Print the laws as rows and the runs as columns, then what broke, then one account for each run."""
    console.print(_table(columns))
    broken: dict[tuple[str, str], list[str]] = {}
    first: dict[tuple[str, str], Outcome] = {}
    for name, outcomes in columns.items():
        for outcome in outcomes:
            if outcome.verdict in (Verdict.BROKEN, Verdict.CRASHED):
                # one block for what looks the same on several releases
                key = outcome.law, outcome.verdict.value
                broken.setdefault(key, []).append(name)
                first.setdefault(key, outcome)
    for key, names in broken.items():
        console.print(_failure(names, first[key]))
    for name, outcomes in columns.items():
        failed = sum(outcome.fails(strict) for outcome in outcomes)
        demanded = "laws" if strict else "must-laws"
        end = f"[bold red]{failed} {demanded} did not hold[/]" if failed else f"[green]all {demanded} held[/]"
        console.print(f"[bold]{name}[/]: {account(outcomes)}; {end}", soft_wrap=True, highlight=False)


def _table(columns: Mapping[str, Sequence[Outcome]]) -> Table:
    table = Table(
        caption="✓ held, with the largest measured ÷ bound   ✗ broken   ! crashed   – not applicable",
        caption_justify="left",
    )
    table.add_column("law", no_wrap=True)
    table.add_column("level", no_wrap=True)
    for name in columns:
        table.add_column(name.replace(".", "\n", 1).replace(" ", "\n", 1))
    rows = {outcome.law: outcome.level for outcomes in columns.values() for outcome in outcomes}
    cells = {(name, o.law): _cell(o) for name, outcomes in columns.items() for o in outcomes}
    family = ""
    for law, level in sorted(rows.items()):
        if family and law.split(".")[0] != family:
            table.add_section()
        family = law.split(".")[0]
        table.add_row(law, level, *(cells.get((name, law), Text("")) for name in columns))
    return table


def _cell(outcome: Outcome) -> Text:
    sign, style = SIGNS[outcome.verdict]
    if outcome.verdict is Verdict.HELD:
        return Text(f"{sign} {outcome.margin:.2g}" if outcome.margin else sign, style=style)
    return Text(sign, style=style if outcome.level == "must" else "yellow")


def _failure(names: Sequence[str], outcome: Outcome) -> RenderableType:
    sign, style = SIGNS[outcome.verdict]
    head = Text.assemble((f"{sign} {outcome.law}", style), f" ({outcome.level}) on {', '.join(names)}")
    lines: list[RenderableType] = [Text(outcome.sentence), Text(outcome.message)]
    if outcome.counterexample:
        lines.append(Text("smallest case found:", style="dim"))
        lines.append(Padding(Text(outcome.counterexample, style="dim"), (0, 0, 0, 2)))
    return Group(head, Padding(Group(*lines), (0, 0, 1, 2)))
