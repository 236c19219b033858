"""Claims (d) to (f): the training runs, one thing changed at a time. Lines are medians, bands reach over all seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from studies.evidence import record
from studies.evidence.figures.style import BLACK, BLUE, GREEN, ORANGE, key, logarithmic, panels, save
from studies.evidence.questions import Run, runs
from studies.evidence.runs import CAUSE, DATA, FAULTY, FIXED, NEWEST

# a second mark of the estimator, for a reader in grey
DOTS = {"color": ORANGE, "marker": "o", "markersize": 3.5, "markevery": 0.12}
#: With the encoder half and without it, for both estimators, all on the release that left it out.
CELLS = {
    "rotation, half missing (as released)": ("rotation", "as released", {"color": BLUE, "linestyle": "-"}),
    "straight-through, half removed": ("straight-through", "removed", {**DOTS, "linestyle": "-"}),
    "rotation, half added": ("rotation", "added", {"color": BLUE, "linestyle": "--"}),
    "straight-through (as released)": ("straight-through", "as released", {**DOTS, "linestyle": "--"}),
}


def cause() -> None:
    """Draw ℓ/w for estimator × encoder half, with each transform and weight."""
    found = runs()
    figure, axes = panels(len(CAUSE), len(DATA), height=2.6)
    for one, (data, (transform, weight)) in zip(axes, [(d, c) for d in DATA for c in CAUSE], strict=True):
        for label, (estimator, half, style) in CELLS.items():
            setting = {"transform": transform, "weight": weight, "encoder_half": half}
            line(one, found.of(release=FAULTY, data=data, estimator=estimator, **setting), "loss", style, label)
        name = {"linear": "linear T", "mlp": "MLP T"}[transform]
        one.set(title=f"{data}, {name}, w = {weight:g}")
        one.title.set_fontsize(9)
        logarithmic(one)
    _name_axes(axes, len(CAUSE), "ℓ / w (units of x²)")
    key(figure, axes[0], 2)
    save(figure, "cause", note(FAULTY))


def fixed() -> None:
    """Draw 1.20.10 as it is, with the half added from outside, and 1.20.11."""
    found = runs()
    figure, axes = panels(len(DATA))
    for one, data in zip(axes, DATA, strict=True):
        common = {"data": data, "estimator": "rotation", "weight": 1000.0}
        wide = {"color": "0.7", "linestyle": "-", "linewidth": 5}
        line(one, found.of(release=FIXED, **common), "loss", wide, FIXED)
        added = {"color": BLACK, "linestyle": "--"}
        line(one, found.of(release=FAULTY, encoder_half="added", **common), "loss", added, f"{FAULTY} + encoder half")
        line(one, found.of(release=FAULTY, **common), "loss", {"color": BLUE, "linestyle": "-"}, FAULTY)
        one.set(title=f"{data}, rotation, MLP T, w = 1000")
        one.title.set_fontsize(9)
        logarithmic(one)
    _name_axes(axes, len(DATA), "ℓ / w (units of x²)")
    key(figure, axes[0], 3)
    save(figure, "fixed", note(f"{FAULTY} and {FIXED}"))


def after() -> None:
    """Draw loss, scale and relative error of the newest release, and what λ = 1 and a large weight change."""
    found = runs()
    curves = {"loss": "ℓ / w (units of x²)", "norm_x": "mean ‖x‖ (units of x)", "relative_error": "Σ‖x−q‖² / Σ‖x‖²"}
    lines: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "straight-through": ({"estimator": "straight-through"}, {"color": ORANGE, "linestyle": "--"}),
        "rotation": ({"estimator": "rotation"}, {"color": BLUE, "linestyle": "-"}),
        "rotation, λ = 1": ({"estimator": "rotation", "ratio": "one"}, {"color": GREEN, "linestyle": ":"}),
        "rotation, w = 1000": (
            {"estimator": "rotation", "weight": 1000.0},
            {"color": BLACK, "linestyle": "-.", "linewidth": 1},
        ),
    }
    figure, axes = panels(len(curves), len(DATA), height=2.6)
    for one, (data, curve) in zip(axes, [(d, c) for d in DATA for c in curves], strict=True):
        for label, (setting, style) in lines.items():
            line(one, found.of(release=NEWEST, data=data, **setting), curve, style, label)
        one.set(title=data, ylabel=curves[curve], xlabel="step")
        one.title.set_fontsize(9)
        logarithmic(one)
    key(figure, axes[0], 4)
    save(figure, "after", note(f"{NEWEST}, MLP T, w = 1 where not said"))


def line(axes: Axes, chosen: list[Run], curve: str, style: dict[str, Any], label: str) -> None:
    """Draw the median over seeds and, as a band, all of them."""
    steps = chosen[0]["curves"]["step"]
    values = np.array([run["curves"][curve] for run in chosen])
    axes.plot(steps, np.median(values, axis=0), label=label, **style)
    axes.fill_between(steps, values.min(axis=0), values.max(axis=0), color=style["color"], alpha=0.15, linewidth=0)


def note(release: str) -> str:
    """Return the foot of a figure of training runs."""
    data = record.read("runs")
    seeds, torch = ", ".join(map(str, data["seeds"])), data["versions"]["torch"]
    return f"vector-quantize-pytorch {release}; seeds {seeds}: median and range; torch {torch}, float32"


def _name_axes(axes: list[Axes], columns: int, label: str) -> None:
    for place, one in enumerate(axes):
        one.set(xlabel="step" if place >= len(axes) - columns else "", ylabel=label if place % columns == 0 else "")
