"""The curves of the training runs, as one picture that also reads in grey."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vq_reference.testing.experiments.issue_177.dynamic import BATCH, COMMITMENT_WEIGHT, Run

#: Lightness and dashes, not hue, tell subjects apart; the estimator is told by thickness, the axes by their titles.
_STYLES = [("0.0", "-"), ("0.35", "--"), ("0.6", ":"), ("0.6", "-."), ("0.8", "-")]
_WIDTHS = {"rotation": 2.0, "straight-through": 0.7}
_PANELS = {
    "loss": "commitment loss / weight (units of x²)",
    "norm": "mean ‖x‖ over tokens (units of x)",
    "relative_error": "mse · D / mean ‖x‖² (no unit)",
}


def draw(runs: Sequence[Run], title: str) -> bytes:
    """Return a PNG with one panel a curve, one line a run: every seed is drawn, none is averaged away."""
    subjects = list(dict.fromkeys(run.subject for run in runs))
    styles = dict(zip(subjects, _STYLES, strict=False))
    figure = Figure(figsize=(13, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    keys = {}
    for axes, (curve, label) in zip(figure.subplots(1, len(_PANELS)), _PANELS.items(), strict=True):
        for run in runs:
            grey, dashes = styles[run.subject]
            steps, width = range(1, len(run.loss) + 1), _WIDTHS[run.estimator]
            (line,) = axes.plot(steps, getattr(run, curve), color=grey, linestyle=dashes, linewidth=width)
            keys[f"{run.subject}, {run.estimator}"] = line
        axes.set(xlabel=f"step (batches of {BATCH[0] * BATCH[1]} tokens)", ylabel=label, yscale="log")
        axes.grid(visible=True, which="major", color="0.9")
    figure.legend(list(keys.values()), list(keys), loc="outside lower center", ncols=len(subjects), frameon=False)
    seeds = sorted({run.seed for run in runs})
    figure.suptitle(f"{title}: commitment_weight {COMMITMENT_WEIGHT:g}, seeds {', '.join(map(str, seeds))}")
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return picture.getvalue()
