"""The numbers of a reproduction as two tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.box import SIMPLE
from rich.table import Table

from vq_reference.testing.experiments.issue_177.dynamic import COMMITMENT_WEIGHT, STEPS, Run
from vq_reference.testing.experiments.issue_177.static import Row


def static_table(rows: Sequence[Row]) -> Table:
    """Return one line for each implementation and estimator on the fixed input."""
    title = f"One fixed input, mean squared error to the code {rows[0].mse:.6g}"
    table = _table(title, "ℓ", "ℓ/mse", "‖∂ℓ/∂x‖", "‖∂ℓ/∂W‖", "halves")
    for row in rows:
        norms = [row.norm("grad_x"), row.norm("grad_transform")]
        cells = ["none" if norm is None else f"{norm:.3g}" for norm in norms]
        ratio = f"{row.ratio:.2f}"
        table.add_row(row.subject, row.estimator, f"{row.loss:.5g}", ratio, *cells, str(row.halves() or "unknown"))
    return table


def dynamic_table(runs: Sequence[Run]) -> Table:
    """Return one line for each implementation and estimator: smallest and largest `Run.final` over the seeds."""
    title = f"End of {STEPS} training steps, commitment_weight {COMMITMENT_WEIGHT:g}, range over seeds"
    table = _table(title, "ℓ / weight", "‖x‖", "mse·D/‖x‖²")
    for (subject, estimator), seeds in groupby(runs, key=lambda run: (run.subject, run.estimator)):
        group = list(seeds)
        ends = [[run.final(curve) for run in group] for curve in ("loss", "norm", "relative_error")]
        table.add_row(subject, estimator, *(f"{min(values):.2g}–{max(values):.2g}" for values in ends))
    return table


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for heading in ("implementation", "estimator"):
        table.add_column(heading, no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right")
    return table
