"""The command `vq-check`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from enum import Enum
from typing import Annotated, Optional

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from vq_reference import __version__
from vq_reference.testing import report
from vq_reference.testing.catalogue import laws
from vq_reference.testing.law import PROFILES
from vq_reference.testing.runner import Plan, TargetFailed
from vq_reference.testing.runner import run as run_plan
from vq_reference.testing.targets import TargetUnavailable, ready

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


def _stop(message: str) -> typer.Exit:
    errors.print(message, style="bold red", markup=False, soft_wrap=True)
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
        list[str], typer.Argument(metavar="TARGET...", help="Ready adapters, such as lucidrains.SimVQ.")
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
        typer.Option("--law", metavar="ID", help="Run this law only. May be given several times."),
    ] = None,
    profile: Annotated[ProfileName, typer.Option(help="How many examples each law draws.")] = ProfileName("default"),
    seed: Annotated[Optional[int], typer.Option(help="Explore other examples than the fixed ones.")] = None,  # noqa: UP045
    jobs: Annotated[int, typer.Option(min=1, help="Child processes at a time.")] = 2,
) -> None:
    """Run the laws on one or more implementations.

    Exit code 0: every must-law held. 1: one did not. 2: the run could not begin.
    """
    catalogue = laws()
    unknown = sorted(set(only or ()) - set(catalogue))
    if unknown:
        raise _stop(f"--law {', '.join(unknown)}: no such law. `vq-check laws` lists them")
    chosen = tuple(law for law in catalogue if not only or law in only)
    template = Plan("", chosen, profile.value, seed)
    columns = {}
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=errors
    ) as progress:
        try:
            for title, plan in _plans(targets, releases or [], template):
                task = progress.add_task(title, total=len(chosen))
                columns[title] = run_plan(plan, jobs, lambda _, task=task: progress.advance(task))  # type: ignore[misc]
        except (TargetUnavailable, TargetFailed) as error:
            raise _stop(str(error)) from None
    report.show(console, columns, strict)
    if any(outcome.fails(strict) for outcomes in columns.values() for outcome in outcomes):
        raise typer.Exit(BROKEN)


def _plans(targets: list[str], requirements: list[str], template: Plan) -> Iterator[tuple[str, Plan]]:
    """Yield a title and a plan for each target, and for each release of those that are about the released package."""
    fetched = [_release(requirement) for requirement in requirements]
    unused = {release.distribution for release in fetched} - {ready(target).distribution for target in targets}
    if unused:
        raise TargetUnavailable(f"--with {', '.join(sorted(unused))}: no target of this run is about that package")
    for target in targets:
        of_target = [release for release in fetched if release.distribution == ready(target).distribution]
        for release in of_target:
            plan = replace(template, target=target, environment=release.environment())
            yield f"{target} {release.version}", plan
        if not of_target:
            yield target, replace(template, target=target)


def _release(requirement: str):  # type: ignore[no-untyped-def]
    try:
        from vq_reference.testing import releases
    except ImportError as error:
        raise TargetUnavailable(f"--with needs {error.name}: pip install 'vq-reference[releases]'") from error
    try:
        return releases.fetch(requirement)
    except (releases.ReleaseUnavailable, releases.ReleaseRefused, ValueError) as error:
        raise TargetUnavailable(f"--with {requirement}: {error}") from error
