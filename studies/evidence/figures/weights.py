"""The advice: which commitment_weight to take, and whether the rotation pays."""

from __future__ import annotations

from studies.evidence.figures.style import STYLES, key, logarithmic, panels, save
from studies.evidence.figures.training import line, note
from studies.evidence.questions import runs
from studies.evidence.runs import DATA, LONG, NEWEST, WEIGHTS


def weight() -> None:
    """Draw loss, relative error, codes used and reconstruction over commitment_weight."""
    found = runs()
    figure, axes = panels(len(DATA), 4, height=2.2)
    columns = {
        "loss": "ℓ / w at the end\n(units of x²)",
        "relative_error": "Σ‖x−q‖² / Σ‖x‖²",
        "codes": "codes used, of 256",
        "reconstruction": "held-out error\n(mean square)",
    }
    for one, (data, column) in zip(axes, [(d, c) for c in columns for d in DATA], strict=True):
        for estimator, style in STYLES.items():
            settings = [{"release": NEWEST, "data": data, "estimator": estimator, "weight": w} for w in WEIGHTS]
            look = found.end if column == "loss" else found.held_out
            low, middle, high = zip(*(look(column, **setting) for setting in settings), strict=True)
            reach = [
                [m - a for a, m in zip(low, middle, strict=True)],
                [b - m for b, m in zip(high, middle, strict=True)],
            ]
            one.errorbar(WEIGHTS, middle, reach, label=estimator, markersize=4, capsize=2, **style)
        one.set(xscale="log", ylabel=columns[column], title=data)
        one.title.set_fontsize(9)
        logarithmic(one)
        if column == list(columns)[-1]:
            one.set_xlabel("commitment_weight w")
    key(figure, axes[0], 2)
    save(figure, "weight", note(f"{NEWEST}, MLP T, 300 steps, held-out data but for ℓ"))


def long() -> None:
    """Draw reconstruction and relative error over a longer training, by estimator."""
    found = runs()
    columns = {"reconstruction": "error of a batch (mean sq.)", "relative_error": "Σ‖x−q‖² / Σ‖x‖²"}
    figure, axes = panels(len(columns), len(DATA), height=2.6)
    for one, (data, column) in zip(axes, [(d, c) for d in DATA for c in columns], strict=True):
        for estimator, style in STYLES.items():
            chosen = found.of(release=NEWEST, data=data, estimator=estimator, steps=LONG)
            line(one, chosen, column, {**style, "marker": ""}, estimator)
        one.set(ylabel=columns[column], xlabel="step", title=data)
        one.title.set_fontsize(9)
        logarithmic(one)
    key(figure, axes[0], 2)
    save(figure, "long", note(f"{NEWEST}, MLP T, w = 1"))
