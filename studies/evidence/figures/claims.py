"""Claims (a) to (c): what the rotation is, what it leaves alone, and what the releases made of the loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from studies.evidence import record
from studies.evidence.figures.style import BLUE, ORANGE, panels, save

SHOWN = 6


def rotation() -> None:
    """Draw R of one token in the basis that shows its plane, and the error of the value by release and estimator."""
    data = record.read("claims")
    newest = data["releases"][-1]
    figure, (left, right) = panels(2, height=3.6)
    R = np.array(newest["rotation"]["matrix"])[:SHOWN, :SHOWN]
    left.imshow(np.abs(R), cmap="Greys", vmin=0, vmax=1.6)
    for (row, column), value in np.ndenumerate(R):
        left.text(
            column,
            row,
            f"{value:.2f}".replace("-0.00", "0.00"),
            ha="center",
            va="center",
            fontsize=8,
            color="white" if abs(value) > 0.7 else "black",
        )
    names = ["x̂", "across", *(f"e{k}" for k in range(3, SHOWN + 1))]
    left.set(xticks=range(SHOWN), yticks=range(SHOWN), xticklabels=names, yticklabels=names)
    left.grid(visible=False)
    left.set_title(f"R of one token: {newest['rotation']['angle']:.1f}° in one plane", fontsize=10)

    for shift, (name, colour, mark) in enumerate((("rotation", BLUE, "o"), ("straight-through", ORANGE, "s"))):
        errors = [row["rotation"]["value"][name] for row in data["releases"]]
        places = np.arange(len(errors)) + 0.2 * shift - 0.1
        right.plot(places, errors, color=colour, marker=mark, linestyle="none", label=name)
    right.axhline(2.0**-24, color="0.4", linestyle=":", label="unit roundoff of float32")
    right.set(yscale="log", ylim=(1e-8, 2), ylabel="largest ‖output − q‖ / ‖q‖ (no unit)", xlabel="release")
    right.set_xticks(range(len(data["releases"])), [row["release"] for row in data["releases"]])
    right.set_title("The value is the code, either way", fontsize=10)
    right.legend(frameon=False, fontsize=8, loc="upper right")
    save(figure, "rotation", _note(data))


def loss() -> None:
    """Draw ℓ / mse and the gradient that reaches the encoder, by release and estimator."""
    data = record.read("claims")
    figure, axes = panels(2)
    for one, (quantity, label) in zip(
        axes, {"ratio": "ℓ / mse (no unit)", "grad_x": "‖∂ℓ/∂x‖ (units of x)"}.items(), strict=True
    ):
        for shift, (name, colour, hatch) in enumerate((("rotation", BLUE, ""), ("straight-through", ORANGE, "//"))):
            values = [row["loss"][name][quantity] for row in data["releases"]]
            places = np.arange(len(values)) + 0.4 * shift - 0.2
            one.bar(places, values, 0.38, color=colour, hatch=hatch, edgecolor="white", label=name)
            for place, value in zip(places, values, strict=True):
                if value == 0:
                    one.text(place, 0, "0", ha="center", va="bottom", fontsize=8, fontweight="bold")
        one.set(ylabel=label, xlabel="release")
        one.set_xticks(range(len(data["releases"])), [row["release"] for row in data["releases"]])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    save(figure, "loss", _note(data))


def _note(data: Any) -> str:
    return f"one fixed input of 64 tokens, D = 16, 64 codes, β = 0.25; torch {data['versions']['torch']}, float32"
