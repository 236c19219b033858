"""The command `vq-check`."""

from __future__ import annotations

import os
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from vq_reference import __version__
from vq_reference.testing import report
from vq_reference.testing.catalogue import laws
from vq_reference.testing.expectations import ExpectationsRefused, draft, expect, load
from vq_reference.testing.law import PROFILES
from vq_reference.testing.plans import planned
from vq_reference.testing.runner import Plan
from vq_reference.testing.runner import run as run_plan
from vq_reference.testing.select import NothingSelected, select
from vq_reference.testing.targets import TargetUnavailable

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
def list_laws() -> None:
    """List every law: id, level, sentence."""
    for law in laws().values():
        console.print(f"[bold]{law.id}[/] ({law.level}) {law.sentence}", highlight=False, soft_wrap=True)


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
    jobs: Annotated[int, typer.Option(min=1, help="Child processes at a time.")] = 2,
    limit: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="Time that one law may take.")] = 120,
    expected: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--expectations",
            metavar="FILE",
            help="Laws that are expected to break, and why (TOML); or the name of a file that comes with this package, "
            "such as vector-quantize-pytorch.",
        ),
    ] = None,
    drafted: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--write-expectations", metavar="FILE", help="Draft such a file from what breaks in this run."),
    ] = None,
) -> None:
    """Run the laws on one or more implementations. This executes their code, in child processes.

    Exit code 0: every must-law held, does not apply, or was expected to break. 1: one did not, or a law was not run.
    2: the run could not begin.
    """
    catalogue = laws()
    try:
        chosen = select(catalogue, only or (), expression)
        expectations = load(expected, catalogue) if expected else ()
        if drafted and drafted.exists():
            raise ExpectationsRefused(
                f"--write-expectations {drafted}: there is such a file, and it is not overwritten"
            )
        template = Plan("", chosen, profile.value, seed, dict(os.environ), limit)
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
            outcomes = expect(result.outcomes, expectations, plan.target, result.versions)
            columns[title] = replace(result, outcomes=outcomes)
    if drafted:
        drafted.write_text(draft(columns.values()), encoding="utf-8")
    report.show(console, columns, strict)
    if any(result.account.fails(strict) for result in columns.values()):
        raise typer.Exit(BROKEN)


if __name__ == "__main__":
    app()
