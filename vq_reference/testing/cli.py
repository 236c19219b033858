"""The command `vq-check`."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Optional

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from vq_reference import __version__
from vq_reference.testing import report
from vq_reference.testing.catalogue import laws
from vq_reference.testing.law import PROFILES
from vq_reference.testing.runner import Plan, TargetFailed, run as run_plan
from vq_reference.testing.verdict import Outcome

COULD_NOT_RUN = 2

app = typer.Typer(
    help="Check a vector quantizer against the laws of vector quantization.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
console = Console()
errors = Console(stderr=True)
ProfileName = Enum("ProfileName", {name: name for name in PROFILES}, type=str)


def _version(wanted: bool) -> None:
    if wanted:
        console.print(f"vq-check {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Check a vector quantizer against the laws of vector quantization."""


@app.command("laws")
def list_laws() -> None:
    """List every law: id, level, sentence."""
    for law in laws().values():
        console.print(f"[bold]{law.id}[/] ({law.level}) {law.sentence}", highlight=False, soft_wrap=True)
