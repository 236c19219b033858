"""What a run of all laws costs, and which part of that is spent inside the implementation under test.

    python -m benchmarks.laws [TARGET] [--profile default]

In this process, one law after the other, in CPU seconds. Inside: making a layer, calling it, its backward, reading its
state, with what the adapter does at the border. The rest is drawing, the oracle, and the bounds. Goal: at most 20 s in
all for two processes, at least half of it inside.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from vq_reference.testing.interface.implementation import Implementation, Wrapped
from vq_reference.testing.laws.registry import laws
from vq_reference.testing.run.judge import judge
from vq_reference.testing.run.targets import implementation_of


@dataclass
class Clock:
    """CPU seconds spent inside: those of the outermost call alone, since a call may make another."""

    seconds: float = 0.0
    depth: int = 0

    def inside(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, timed, whose result is timed as well."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            self.depth += 1
            begun = time.process_time()
            try:
                made = function(*map(bare, args), **kwargs)
            finally:
                self.depth -= 1
                if not self.depth:
                    self.seconds += time.process_time() - begun
            return Timed(made, self) if hasattr(made, "state") else made

        return timed

    def watch(self, tested: Implementation) -> Implementation:
        """Return the implementation with all that makes layers timed, and the layers too."""
        lasting = tested.lasting
        if lasting is not None:
            makers = {
                name: self.inside(made)
                for name in ("build", "cast", "compiled", "build_stack")
                if (made := getattr(lasting, name)) is not None
            }
            carry = {name: self.inside(carried) for name, carried in lasting.carry.items()}
            lasting = replace(lasting, carry=carry, **makers)  # type: ignore[arg-type]
        return replace(tested, build=self.inside(tested.build), lasting=lasting)


@dataclass(frozen=True)
class Timed(Wrapped):
    """A layer whose methods are timed."""

    layer: Any
    clock: Clock

    def around(self, method: str, do: Callable[..., Any], *given: Any, **named: Any) -> Any:
        """Return what the layer's method gives."""
        return self.clock.inside(do)(*given, **named)


def bare(value: Any) -> Any:
    """Return a layer without its clock."""
    return value.layer if isinstance(value, Timed) else value


def show(console: Console, title: str, rows: Sequence[tuple[str, float, float]]) -> None:
    """Print the families, the dearest first: laws, CPU seconds, share inside."""
    table = Table("family", title=title)
    for heading in ("laws", "CPU s", "inside"):
        table.add_column(heading, justify="right")
    for family in sorted({row[0] for row in rows}, key=lambda f: -sum(r[1] for r in rows if r[0] == f)):
        mine = [row for row in rows if row[0] == family]
        total, within = sum(row[1] for row in mine), sum(row[2] for row in mine)
        table.add_row(family, str(len(mine)), f"{total:.2f}", f"{within / total:.0%}")
    total, within = sum(row[1] for row in rows), sum(row[2] for row in rows)
    table.add_section()
    table.add_row("all", str(len(rows)), f"{total:.2f}", f"{within / total:.0%}")
    console.print(table)


def main(
    target: Annotated[str, typer.Argument(help="As for vq-check run.")] = "reference.SimVQ",
    profile: Annotated[str, typer.Option(help="quick, default or thorough.")] = "default",
) -> None:
    """Measure what the laws cost on one implementation."""
    tested, clock, rows = implementation_of(target), Clock(), []
    watched = clock.watch(tested)
    for law in track([law for law in laws().values() if not tested.lacks(law.needs)], target, transient=True):
        begun, before = time.process_time(), clock.seconds
        judge(law, watched, profile, None)
        rows.append((law.id.split(".")[0], time.process_time() - begun, clock.seconds - before))
    show(Console(), f"{target}, {profile} profile", rows)


if __name__ == "__main__":
    typer.run(main)
