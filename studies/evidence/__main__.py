"""The command ``python -m studies.evidence``: runs, then figures, then pages."""

from __future__ import annotations

from typing import Annotated, Optional

import typer
from rich.console import Console

from studies.evidence import page, record
from studies.evidence.experiments import EXPERIMENTS
from studies.evidence.figures import DRAW


def main(
    only: Annotated[
        Optional[list[str]],  # noqa: UP045  (typer on Python 3.10 reads no `|`)
        typer.Option(metavar="EXPERIMENT", help="Run this one only; may be given several times."),
    ] = None,
    run: Annotated[bool, typer.Option(help="Run the experiments; without, draw and write from the last run.")] = True,
) -> None:
    """Make everything that docs/why-the-loss-inflated.md shows: runs, figures, text."""
    console = Console(stderr=True)
    unknown = set(only or ()) - set(EXPERIMENTS)
    if unknown:
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: expected one of {', '.join(EXPERIMENTS)}")
    for name in (only or EXPERIMENTS) if run else ():
        with console.status(name) as status:
            path = record.write(name, EXPERIMENTS[name](status.update))
        console.print(f"{name}: {path.relative_to(record.DOCS.parent)}")
    for name, draw in DRAW.items():
        draw()
        console.print(f"figure {name}")
    page.write()


if __name__ == "__main__":
    typer.run(main)
