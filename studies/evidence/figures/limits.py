"""Where float32 and silence bring the rotation to its limits, and which releases keep the laws."""

from __future__ import annotations

from typing import Any

import numpy as np

from studies.evidence import record
from studies.evidence.figures.style import BLACK, BLUE, ORANGE, key, panels, save

MODULES: dict[str, dict[str, Any]] = {
    "upstream": {"color": ORANGE, "linestyle": "--", "marker": "s"},
    "reference": {"color": BLUE, "linestyle": "-", "marker": "o"},
}
NAMES = {"upstream": "vector-quantize-pytorch {release}", "reference": "vq_reference.nn"}


def accuracy() -> None:
    """Draw the errors of value and rotation over the angle, and of value and gradient over the norm."""
    data = record.read("accuracy")
    figure, axes = panels(2, 2, height=2.7)
    rows = [("angles", "angle", ("forward", "rotation")), ("norms", "norm", ("forward", "backward"))]
    labels = {
        "forward": "value: ‖out − q‖ / ‖q‖",
        "rotation": "rotation: max |J′J/λ² − I|",
        "backward": "gradient: ‖vjp − λR′g‖ / ‖λR′g‖",
        "angle": "angle between q and −x (rad)",
        "norm": "‖x‖ (left edge: x = 0)",
    }
    least = 1e-9  # what stands for an error of exactly 0 on a logarithmic axis
    for place, (which, over, quantities) in enumerate(rows):
        for one, quantity in zip(axes[2 * place : 2 * place + 2], quantities, strict=True):
            for module, style in MODULES.items():
                points = data[module][which]
                # x = 0 has no place on a logarithmic axis: it is drawn two decades before the smallest norm
                places = [point[over] or min(p[over] for p in points if p[over]) / 100 for point in points]
                values = [max(point[quantity], least) for point in points]
                label = NAMES[module].format(release=data["release"])
                one.plot(places, values, markersize=3, linewidth=1, label=label, **style)
            one.axhline(2.0**-24, color="0.4", linestyle=":", label="unit roundoff of float32")
            one.set(xscale="log", yscale="log", xlabel=labels[over], ylabel=labels[quantity])
            one.set_ylim(bottom=least / 2)
        axes[2 * place].text(0.02, 0.1, "exactly 0", fontsize=8, transform=axes[2 * place].transAxes)
    key(figure, axes[0], 3)
    save(figure, "accuracy", f"D = 16, 64 random tokens a point, seed 0; torch {data['versions']['torch']}, float32")


def silence() -> None:
    """Draw the largest λ and the largest error of the value by kind of token, for each encoder."""
    data = record.read("silence")
    kinds = ("speech", "silence", "padding")
    encoders = {"bias": "biases", "no bias": "no biases", "masked": "masked output"}
    figure, axes = panels(3, 2, height=2.4)
    least = 1e-9
    for row, quantity in enumerate(("gain", "forward")):
        for one, (encoder, title) in zip(axes[3 * row : 3 * row + 3], encoders.items(), strict=True):
            for shift, (module, style) in enumerate(MODULES.items()):
                chosen = [r["kinds"] for r in data["rows"] if r["module"] == module and r["encoder"] == encoder]
                for place, kind in enumerate(kinds):
                    values = [max(c[kind][quantity], least) for c in chosen]
                    label = NAMES[module].format(release=data["release"])
                    places = np.full(len(values), place + 0.24 * shift - 0.12)
                    one.plot(places, values, markersize=5, label=label, **{**style, "linestyle": "none"})
            one.set(yscale="log", xlim=(-0.5, 2.5), title=f"encoder: {title}")
            one.title.set_fontsize(9)
            one.set_xticks(range(len(kinds)), kinds)
            one.set_ylim(*((1e-1, 1e8) if quantity == "gain" else (least / 2, 10)))
    axes[0].set_ylabel("largest gain of the gradient")
    axes[3].set_ylabel("largest ‖out − q‖ / ‖q‖\n(lowest: exactly 0)")
    key(figure, axes[0], 2)
    seeds = ", ".join(map(str, data["seeds"]))
    save(
        figure,
        "silence",
        f"speech, rotation, w = 1, 300 steps, each of seeds {seeds}; torch {data['versions']['torch']}",
    )


def versions() -> None:
    """Draw which laws each release breaks: a mark for each law and release."""
    data = record.read("versions")
    releases = [row["release"] for row in data["releases"]]
    laws = sorted(data["sentences"], key=lambda law: (not any(law in row["must"] for row in data["releases"]), law))
    figure, (axes,) = panels(1, width=8.5, height=0.24 * len(laws) + 1.6)
    marks: dict[str, dict[str, Any]] = {
        "must": {"color": BLACK, "marker": "s", "label": "must-law broken"},
        "should": {"color": "white", "marker": "o", "markeredgecolor": BLACK, "label": "should-law broken"},
    }
    for column, row in enumerate(data["releases"]):
        for level, style in marks.items():
            places = [laws.index(law) for law in row[level]]
            axes.plot([column] * len(places), places, linestyle="none", markersize=6, **style)
        if row["unusable"]:
            axes.axvspan(
                column - 0.4, column + 0.4, facecolor="0.85", hatch="///", edgecolor="0.5", label="cannot be used"
            )
    axes.set(xlim=(-0.6, len(releases) - 0.4), ylim=(len(laws) - 0.4, -0.6))
    axes.set_xticks(range(len(releases)), releases, rotation=60, ha="right", fontsize=8)
    axes.set_yticks(range(len(laws)), laws, fontsize=8)
    key(figure, axes, 3)
    foot = f"{data['laws']} laws, profile {data['profile']}; torch {data['versions']['torch']}"
    save(figure, "versions", f"SimVQ of vector-quantize-pytorch; {foot}")
