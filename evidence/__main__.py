"""The command ``python -m evidence``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from evidence import record
from evidence.experiments import EXPERIMENTS



def main(only: Annotated[list[str] | None, typer.Option(help="Run this experiment only; repeat for several.")] = None) -> None:
    console = Console(stderr=True)
    for name in only or EXPERIMENTS:
        with console.status(name) as status:
            path = record.write(name, EXPERIMENTS[name](status.update))
        console.print(f"{name}: {path.relative_to(record.DOCS.parent)}")


if __name__ == "__main__":
    typer.run(main)
