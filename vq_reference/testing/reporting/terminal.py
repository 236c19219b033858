"""What a run prints: families and laws with verdict and margin, then for each broken law what to act on."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from vq_reference.testing.laws.verdict import Outcome, Verdict
from vq_reference.testing.reporting.known_bugs import nearest_known_bug
from vq_reference.testing.reporting.results import Result
from vq_reference.testing.reporting.run_files import script_name

# a sign beside the colour, for those who see none
SIGNS = {
    Verdict.HELD: ("✓", "green"),
    Verdict.BROKEN: ("✗", "bold red"),
    Verdict.NOT_APPLICABLE: ("–", "dim"),
    Verdict.EXPECTED: ("e", "yellow"),
    Verdict.CRASHED: ("!", "bold magenta"),
    Verdict.NOT_RUN: ("?", "bold yellow"),
}
# "✓ 0.04" and the blanks beside it
CELL_WIDTH = 8
INDENT = 2
# bounds whose derivations are printed in full; of more, their names, which `vq-check explain` spells out
FEW = 2


def show(console: Console, results: Mapping[str, Result], strict: bool, scripts: Path | None = None) -> None:
    """Print the laws as rows and the runs as columns, then what broke, then one account for each run.

    scripts: the folder that they were written to.
    """
    console.print(table(results, console.width))
    for alike in _alike(results).values():
        console.print(Padding(failure(alike, scripts), (0, 0, 1, 0)))
    planned = list(dict.fromkeys(o.law for result in results.values() for o in result.outcomes))
    for reasons, names in _inapplicable(results).items():
        lines = [Text(f"{len(laws):>3}  {why}: {', '.join(_by_family(laws, planned))}") for why, laws in reasons]
        console.print(_block("– not applicable", "dim", f" on {', '.join(names)}, for want of", lines))
    if any(o.verdict is Verdict.NOT_APPLICABLE for result in results.values() for o in result.outcomes):
        console.print()
    for name, result in results.items():
        failed = sum(outcome.fails(strict) for outcome in result.outcomes)
        demanded = "laws" if strict else "must-laws"
        end = f"[bold red]{failed} failed[/]" if failed else f"[green]all {demanded} held or were expected to break[/]"
        end = "[bold yellow]no law applies, nothing was checked[/]" if result.account.is_empty else end
        console.print(f"[bold]{name}[/]: {result.account}; {end}", soft_wrap=True, highlight=False)


def text(results: Mapping[str, Result], strict: bool) -> str:
    """Return what `show` prints, without colours: for the message of an exception."""
    console = Console(file=io.StringIO(), width=100, color_system=None, force_terminal=False)
    with console.capture() as captured:
        show(console, results, strict)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def table(results: Mapping[str, Result], width: int) -> Group:
    """Return the table of verdicts, laws by runs. Where the runs' names do not fit beside each other they are numbered.

    One run is given a column more: how many examples its laws were tried on. Laws that apply to no run have no row:
    `show` says below why.
    """
    every = [o for result in results.values() for o in result.outcomes]
    rows = {o.law: o.level for o in every if o.verdict is not Verdict.NOT_APPLICABLE}
    room = (width - max(map(len, rows), default=0) - len("should") - 2 * INDENT) // max(len(results), 1)
    labels = [name.replace(".", "\n", 1).replace(" ", "\n", 1) for name in results]
    numbered = any(len(line) + 2 > max(room, CELL_WIDTH) for label in labels for line in label.split("\n"))
    made = Table(box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True)
    made.add_column("law", no_wrap=True)
    made.add_column("level", no_wrap=True)
    for i, label in enumerate(labels, 1):
        made.add_column(str(i) if numbered else label, no_wrap=True)
    alone = next(iter(results.values())) if len(results) == 1 else None
    if alone:
        made.add_column("examples", justify="right", no_wrap=True)
    examples = {o.law: str(o.examples) for o in alone.outcomes} if alone else {}
    cells = {(name, o.law): _cell(o) for name, result in results.items() for o in result.outcomes}
    family = ""
    for law, level in sorted(rows.items()):
        if family and law.split(".")[0] != family:
            made.add_section()
        family = law.split(".")[0]
        verdicts = [cells.get((name, law), Text("")) for name in results]
        made.add_row(law, level, *verdicts, *([examples[law]] if alone else []))
    seen = {o.verdict for o in every if o.law in rows}
    legend = [f"{sign} {verdict.value}" for verdict, (sign, _) in SIGNS.items() if verdict in seen]
    names = [Text(f"{i}  {name}") for i, name in enumerate(results, 1)] if numbered else []
    notes = Text("   ".join([*legend, "number: measured ÷ bound"]), style="dim")
    return Group(*names, made, notes, Text(""))


def _cell(outcome: Outcome) -> Text:
    sign, style = SIGNS[outcome.verdict]
    if outcome.holds_unexpectedly:
        return Text(f"{sign} stale", style="bold red")
    if outcome.verdict is Verdict.HELD:
        return Text(f"{sign} {_margin(outcome.margin)}" if outcome.margin else sign, style=style)
    return Text(sign, style="yellow" if outcome.level == "should" and outcome.verdict is Verdict.BROKEN else style)


def _margin(margin: float) -> str:
    """Write a margin in four places, so that five columns fit in a terminal of eighty."""
    return f"{margin:.2f}" if margin >= 0.01 else "<.01"


Alike = Sequence[tuple[str, Result, Outcome]]


def _alike(results: Mapping[str, Result]) -> dict[tuple[str, ...], list[tuple[str, Result, Outcome]]]:
    """Group what is worth a word by what it looks like: one block for the same fault on several releases."""
    groups: dict[tuple[str, ...], list[tuple[str, Result, Outcome]]] = {}
    for name, result in results.items():
        for outcome in result.outcomes:
            if outcome.verdict is Verdict.NOT_RUN:
                key: tuple[str, ...] = (outcome.verdict.value, name, outcome.message)
            elif outcome.verdict is Verdict.EXPECTED or outcome.holds_unexpectedly:
                key = (outcome.verdict.value, name, outcome.expectation)
            elif outcome.verdict is Verdict.CRASHED:  # a declaration that does not fit is met by every law
                key = (outcome.verdict.value, outcome.message)
            elif outcome.verdict is Verdict.BROKEN:
                key = (outcome.verdict.value, outcome.law, outcome.message)
            else:
                continue
            groups.setdefault(key, []).append((name, result, outcome))
    return groups


def failure(alike: Alike, scripts: Path | None) -> Group:
    """Return the report of one fault: what the law says, on what it broke, by which numbers, and what it looks like."""
    name, result, outcome = alike[0]
    sign, style = SIGNS[outcome.verdict]
    names = ", ".join(dict.fromkeys(name for name, _, _ in alike))
    broken = list(dict.fromkeys(outcome.law for _, _, outcome in alike))
    laws = ", ".join(_by_family(broken, broken))
    if outcome.verdict is Verdict.NOT_RUN:
        return _block(f"{sign} {len(alike)} laws not run", style, f" on {names}", [Text(outcome.message)])
    if outcome.holds_unexpectedly:
        said = f"expected to break: {outcome.expectation}. It holds: take it off the list of expectations"
        return _block(f"{sign} {laws}", "bold red", f" on {names}", [Text(said)])
    if outcome.verdict is Verdict.EXPECTED:
        return _block(f"{sign} {laws}", style, f" on {names}", [Text(f"expected: {outcome.expectation}")])
    script = "--scripts DIR" if scripts is None else str(scripts / script_name(name, outcome))
    return _block(f"{sign} {laws}", style, f" ({outcome.level}) on {names}", list(_said(outcome, result, script)))


Reasons = tuple[tuple[str, tuple[str, ...]], ...]


def _inapplicable(results: Mapping[str, Result]) -> dict[Reasons, list[str]]:
    """Return why laws were not applicable, as (what is wanting, the laws), and of which runs that is so.

    A law that needs several things counts for the one that most laws need, so that the reasons are few.
    """
    alike: dict[Reasons, list[str]] = {}
    for name, result in results.items():
        left = {o.law: o.lacks or [o.message] for o in result.outcomes if o.verdict is Verdict.NOT_APPLICABLE}
        reasons = []
        while left:
            counted = Counter(lacking for lacks in left.values() for lacking in lacks)
            most = max(counted, key=lambda lacking: (counted[lacking], lacking))
            reasons.append((most, tuple(law for law, lacks in left.items() if most in lacks)))
            left = {law: lacks for law, lacks in left.items() if most not in lacks}
        if reasons:
            alike.setdefault(tuple(reasons), []).append(name)
    return alike


def _by_family(laws: Sequence[str], of: Sequence[str]) -> Iterator[str]:
    """Yield each law, or `family.*` where all of a family are meant, of those laws that are spoken of."""
    meant, families = (Counter(law.split(".")[0] for law in each) for each in (laws, of))
    whole = {family for family, count in families.items() if 1 < count == meant[family]}
    yield from dict.fromkeys(f"{f}.*" if (f := law.split(".")[0]) in whole else law for law in laws)


def _block(head: str, style: str, rest: str, lines: Sequence[Text]) -> Group:
    return Group(Text.assemble((head, style), rest), *(Padding(line, (0, 0, 0, INDENT)) for line in lines))


def _said(outcome: Outcome, result: Result, script: str) -> Iterator[Text]:
    yield Text(outcome.sentence, style="bold")
    yield Text(", ".join(f"{name} {version}" for name, version in result.versions.items()), style="dim")
    found = outcome.counterexample
    if found is None or found.actual is None:
        yield Text(outcome.message)
    else:
        entry = f"[{', '.join(map(str, found.where))}]" if found.where else ""
        yield Text(f"{found.what}{entry}")
        yield Text(f"expected {found.expected:.9g}")
        yield Text(f"actual   {found.actual:.9g}")
        exceeded = f"exceeded {found.margin:.3g} times" if found.margin == found.margin else "and this is no number"
        yield Text(f"bound    {found.bound:.3g}, {exceeded}")
    if found is None:
        return
    yield Text("smallest input found:")
    for line in found.inputs:
        yield Text(line)
    if len(found.derivations) > FEW:
        names = ", ".join(derivation.split(": ")[0] for derivation in found.derivations)
        yield Text(f"bound from {names}: see `vq-check explain {outcome.law}`", style="dim")
    else:
        yield from (Text(f"bound from {derivation}", style="dim") for derivation in found.derivations)
    bug = nearest_known_bug(outcome.law, result.outcomes)
    if bug:
        yield Text(f"nearest known bug: {bug}", style="bold")
    yield Text(f"a script that shows this alone: {script}" if found.script else f"no script: {found.no_script}")
