"""One look for all figures: legible in grey, by the colour-blind, and on a phone."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from studies.evidence.record import FIGURES

#: Okabe and Ito's colours in the order of their lightness; dashes and marks say the same once more.
BLACK, BLUE, ORANGE, GREEN = "#000000", "#0072B2", "#E69F00", "#009E73"
ROTATION: dict[str, Any] = {"color": BLUE, "linestyle": "-", "marker": "o"}
STRAIGHT: dict[str, Any] = {"color": ORANGE, "linestyle": "--", "marker": "s"}
STYLES = {"rotation": ROTATION, "straight-through": STRAIGHT}


def panels(columns: int, rows: int = 1, width: float = 8.0, height: float = 3.2) -> tuple[Figure, list[Axes]]:
    """Return a figure and its `rows` × `columns` axes, row by row. Sizes in inches, height that of a row."""
    figure = Figure(figsize=(width, rows * height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for one in axes.flat:
        one.grid(visible=True, which="major", color="0.9", linewidth=0.6)
        one.spines[["top", "right"]].set_visible(False)
        one.set_axisbelow(True)
    return figure, list(axes.flat)


def logarithmic(axes: Axes) -> None:
    """Make the y axis logarithmic with few labels that are read at a glance: 1, 2, 5 in a few decades, else powers."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    few_decades = 100
    if high / low < few_decades:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def key(figure: Figure, axes: Axes, columns: int) -> None:
    """Put the key of `axes` above the figure, each label once."""
    handles, labels = axes.get_legend_handles_labels()
    found = dict(zip(labels, handles, strict=True))
    figure.legend(list(found.values()), list(found), loc="outside upper center", ncols=columns, frameon=False)


def save(figure: Figure, name: str, note: str) -> None:
    """Write ``docs/figures/NAME.png`` with the note, of seeds and versions, at its foot."""
    figure.supxlabel(note, fontsize=7, color="0.35", x=0.99, ha="right")
    figure.savefig(FIGURES / f"{name}.png", dpi=130, metadata={"Software": None})
