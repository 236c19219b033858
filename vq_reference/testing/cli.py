"""The command `vq-check`."""

from __future__ import annotations

import difflib
import importlib
import json
import os
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from vq_reference import __version__
from vq_reference.testing.laws.law import PROFILES
from vq_reference.testing.laws.registry import as_markdown, laws
from vq_reference.testing.laws.select import NothingSelected, select
from vq_reference.testing.reporting import run_files, terminal
from vq_reference.testing.reporting.results import Plan
from vq_reference.testing.run.expectations import ExpectationsRefused, draft, expect, load
from vq_reference.testing.run.plans import planned
from vq_reference.testing.run.runner import run as run_plan
from vq_reference.testing.run.targets import TargetUnavailable, object_of

BROKEN, COULD_NOT_RUN = 1, 2

app = typer.Typer(
    help="Check a vector quantizer against the laws of vector quantization.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
console = Console()
errors = Console(stderr=True)
ProfileName = Enum("ProfileName", {name: name for name in PROFILES}, type=str)  # type: ignore[misc]


class Issue(str, Enum):
    """The bugs that `reproduce` knows."""

    SIMVQ_COMMITMENT_LOSS = "177"


def _print_version(wanted: bool) -> None:
    if wanted:
        console.print(f"vq-check {__version__}")
        raise typer.Exit


def _stop(message: object) -> typer.Exit:
    errors.print(str(message), style="bold red", markup=False, soft_wrap=True)
    return typer.Exit(COULD_NOT_RUN)


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True)] = False,
) -> None:
    """Check a vector quantizer against the laws of vector quantization."""


@app.command("laws")
def list_laws(
    as_json: Annotated[bool, typer.Option("--json", help="Print them as JSON, with source and needs.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print them as the page docs/laws.md.")] = False,
) -> None:
    """List every law: id, level, sentence."""
    if markdown:
        typer.echo(as_markdown(), nl=False)
        return
    if as_json:
        fields = ("id", "level", "sentence", "source")
        rows = [{**{f: getattr(law, f) for f in fields}, "needs": sorted(law.needs)} for law in laws().values()]
        typer.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    table = Table("law", "level", "sentence", box=SIMPLE_HEAD)
    for law in laws().values():
        table.add_row(law.id, law.level, law.sentence)
    console.print(table)


@app.command("explain")
def explain_law(law: Annotated[str, typer.Argument(metavar="LAW", help="Its id, such as rotation.proper.")]) -> None:
    """Say what a law states, where it comes from, and what usually breaks it."""
    from vq_reference.testing.explain import explain

    catalogue = laws()
    if law not in catalogue:
        near = difflib.get_close_matches(law, catalogue, n=1)
        raise _stop(f"{law!r} is no law: {f'did you mean {near[0]}?' if near else '`vq-check laws` lists them'}")
    table = Table(law, box=SIMPLE_HEAD, show_header=False)
    table.add_column()
    for heading, text in explain(catalogue[law]):
        table.add_row(Text(heading, style="bold"), Text(text))
    console.print(table)


@app.command()
def reproduce(
    issue: Annotated[Issue, typer.Argument(help="The number of a known bug.")],
    offline: Annotated[
        bool, typer.Option("--offline", help="Measure faults put into the reference in place of the released packages.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for the numbers and curves.")] = Path(),
) -> None:
    """Reproduce a known bug on the releases that have it, and show it gone in the release that mended it.

    Exit code 0: reproduced. 1: not. 2: it could not be run.
    """
    try:
        from vq_reference.testing.experiments.issue_177.reproduce import reproduce_177
    except ImportError as error:
        raise _stop(f"reproduce needs {error.name}: pip install 'vq-reference[releases]'") from error
    raise typer.Exit(reproduce_177(out, offline, console=console))


@app.command()
def describe(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="As for `run`. This executes its code.")],
) -> None:
    """Find out the conventions of a quantizer by calling it, and print an adapter to paste."""
    # by name, and not at the top: it imports torch and the target
    describing = importlib.import_module("vq_reference.testing.describe.describe")
    try:
        # a file is no module name: its class knows what it is imported as
        origin = "" if ".py:" in target else target
        typer.echo(describing.describe(object_of(target), origin))  # not wrapped: it is to be pasted
    except TargetUnavailable as error:
        raise _stop(error) from error
    except describing.CannotDescribe as error:
        raise _stop(f"target {target} cannot be described: {error}") from error


@app.command()
def run(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET...",
            help="Ready adapters, such as lucidrains.SimVQ, or your own: package.module:object or path/file.py:object. "
            "This executes the target's code.",
        ),
    ],
    releases: Annotated[
        Optional[list[str]],  # noqa: UP045  (typer on Python 3.10 reads no `|`)
        typer.Option(
            "--with",
            metavar="PACKAGE[==VERSION]",
            help="Run on this release, fetched and kept apart from the environment; without a version, on the newest. "
            "May be given several times.",
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Let a broken should-law fail the run too.")] = False,
    only: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--law", metavar="ID", help="Run this law only, or all of a pattern such as 'rotation.*'. Repeatable."
        ),
    ] = None,
    expression: Annotated[
        str, typer.Option("-k", metavar="EXPR", help="Run laws whose id matches, as in 'rotation and not output'.")
    ] = "",
    profile: Annotated[ProfileName, typer.Option(help="How many examples each law draws.")] = ProfileName("default"),
    seed: Annotated[Optional[int], typer.Option(help="Explore other examples than the fixed ones.")] = None,  # noqa: UP045
    jobs: Annotated[int, typer.Option(min=1, envvar="VQ_CHECK_JOBS", help="Child processes at a time.")] = 2,
    limit: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            min=1,
            metavar="SECONDS",
            help="Time that one law may take: 120, and 1200 with --profile thorough, if not said.",
            show_default=False,
        ),
    ] = None,
    expected: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--expectations",
            metavar="FILE",
            help="Laws that are expected to break, and why (TOML); or the name of a file that comes with this package, "
            "such as vector-quantize-pytorch.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Where the target computes, such as cuda.")] = "",
    dtype: Annotated[str, typer.Option(help="What the target computes in, such as float64.")] = "",
    drafted: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--write-expectations", metavar="FILE", help="Draft such a file from what breaks in this run."),
    ] = None,
    json_file: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--json", metavar="FILE", help="Write the run as JSON; its schema comes with this package."),
    ] = None,
    junit: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--junit", metavar="FILE", help="Write the run as JUnit XML, for a CI server."),
    ] = None,
    scripts: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="DIR", help="Write a script for each broken law, to paste into a bug report."),
    ] = None,
) -> None:
    """Run the laws on one or more implementations. This executes their code, in child processes.

    Exit code 0: every must-law held, does not apply, or was expected to break. 1: one did not, or a law was not run.
    2: the run could not begin, or none of the laws applies.
    """
    catalogue = laws()
    try:
        chosen = select(catalogue, only or (), expression)
        expectations = load(expected, catalogue) if expected else ()
        if drafted and drafted.exists():
            raise ExpectationsRefused(
                f"--write-expectations {drafted}: there is such a file, and it is not overwritten"
            )
        template = Plan("", chosen, profile.value, seed, dict(os.environ), limit, device, dtype)
        plans = planned(targets, releases or [], template)
    except (NothingSelected, ExpectationsRefused, TargetUnavailable) as error:
        raise _stop(error) from None
    columns = {}
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=errors
    ) as progress:
        for title, plan in plans.items():
            task = progress.add_task(title, total=len(chosen))
            result = run_plan(plan, jobs, lambda _, task=task: progress.advance(task))  # type: ignore[misc]
            outcomes = expect(result.outcomes, expectations, plan.target, result.versions, plan.profile)
            columns[title] = replace(result, outcomes=outcomes)
    if all(result.never_made for result in columns.values()):
        raise _stop("\n".join(result.never_made for result in columns.values()))
    if drafted:
        drafted.write_text(draft(columns.values()), encoding="utf-8")
    run_files.write(columns, strict, json_file, junit, scripts)
    terminal.show(console, columns, strict, scripts)
    if any(result.account.fails(strict) for result in columns.values()):
        raise typer.Exit(BROKEN)
    if all(result.account.is_empty for result in columns.values()):
        raise _stop(f"no law that was chosen applies to {', '.join(columns)}: nothing was checked")


@app.command()
def drift(
    files: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Argument(metavar="FILES", help="Records of environments; the others are compared with the first."),
    ] = None,
    written: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--write", metavar="FILE", help="Record this environment, named after the file."),
    ] = None,
) -> None:
    """Set the same computations in several environments side by side: equal, equal within the bound, or moved.

    Exit code 0: the oracle did not move. 1: it did, or could not be computed. 2: there is nothing to compare.
    """
    # by name, and not at the top: it imports torch
    tables = importlib.import_module("vq_reference.testing.experiments.drift.table")
    if written:
        importlib.import_module("vq_reference.testing.experiments.drift.record").write(written)
        if not files:
            return
    if len(files or []) < 2:
        raise _stop("drift compares two or more files that `vq-check drift --write FILE` wrote")
    try:
        environments = [tables.Environment.read(path) for path in files or []]
    except (OSError, ValueError) as error:
        raise _stop(error) from error
    found = tables.changes(environments)
    heading, *rows = tables.table(environments, found)
    shown = Table(*heading, box=SIMPLE_HEAD)
    for row in rows:
        shown.add_row(*row)
    console.print(shown)
    for key in tables.oracle_moved(found):
        errors.print(f"{key} moved: the oracle must not", style="bold red", markup=False)
    if tables.oracle_moved(found):
        raise typer.Exit(BROKEN)


cases = typer.Typer(help="Known bugs, pinned as data.", no_args_is_help=True)
app.add_typer(cases, name="case")


@cases.callback()
def case() -> None:
    """Keep known bugs as cases that stay caught."""


@cases.command("add")
def add_case(
    draft: Annotated[
        Path, typer.Argument(metavar="DRAFT", help="JSON: what went wrong, where and since when; see docs/cases.md.")
    ],
    run_file: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--from", metavar="RUN", help="A file that `run --json` wrote: its counterexample is the input."),
    ] = None,
    law: Annotated[str, typer.Option(metavar="ID", help="The law in that run whose counterexample it is.")] = "",
    folder: Annotated[Path, typer.Option("--to", help="Where the cases are.")] = Path("regressions/cases"),
) -> None:
    """Pin a known bug: the oracle's numbers for an input that shows it.

    Exit code 2 for a draft that does not meet the schema, and for a case that there is already.
    """
    from vq_reference.testing.cases.add import add
    from vq_reference.testing.cases.case import CaseRefused

    try:
        console.print(str(add(draft, folder, run_file, law)), soft_wrap=True)
    except CaseRefused as error:
        raise _stop(error) from None


@cases.command("renew")
def renew_case(
    name: Annotated[str, typer.Argument(metavar="ID", help="The case.")],
    folder: Annotated[Path, typer.Option("--in", help="Where the cases are.")] = Path("regressions/cases"),
) -> None:
    """Write a case anew with the numbers and bounds that the oracle derives today, after a formula has been mended.

    Exit code 2 for a case that is not there.
    """
    from vq_reference.testing.cases.add import renew
    from vq_reference.testing.cases.case import CaseRefused

    try:
        console.print(str(renew(name, folder)), soft_wrap=True)
    except CaseRefused as error:
        raise _stop(error) from None


if __name__ == "__main__":
    app()
