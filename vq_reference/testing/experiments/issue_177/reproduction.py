"""Whether issue 177 was reproduced: one ratio with a stated margin, for each seed, beside the static rows.

The ratio is the final loss of a release without the encoder half over that of a release with it, same seed, both with
the rotation. What else could move it?

- The formula itself: at equal parameters the missing half divides the loss by 1 + β. That makes the ratio smaller, so
  it can hide an inflation and never make one.
- Chance: weights and batches. How far chance goes is measured in the same run, on the straight-through estimator,
  which every release has right: the spread s is the largest over the smallest of its final losses, over all seeds
  and all implementations.

The margin is 10·s: an order of magnitude, which is what "explodes" is taken to mean, beyond what chance does. The
inflation is gone where the rotation's final loss stays within the margin of the straight-through one of the same
release and seed: the two estimators share one loss, so training with them must end in one order of magnitude.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vq_reference.testing.experiments.issue_177.dynamic import Run
from vq_reference.testing.experiments.issue_177.measured import Measured
from vq_reference.testing.experiments.issue_177.static import BETA, BOTH, Row

#: How many times larger is an explosion.
ORDER = 10.0


@dataclass(frozen=True)
class Reproduction:
    """reproduced: every condition held. sentence: why. margin: what each ratio must reach. ratios: by pair and seed."""

    reproduced: bool
    sentence: str
    margin: float
    ratios: dict[str, float]


def judge(subjects: Sequence[Measured], rows: Sequence[Row], runs: Sequence[Run]) -> Reproduction:
    """Return the verdict on the static rows and the training runs of `subjects`.

    It needs at least one trained subject with both halves and one without, each with both estimators for each seed.
    """
    halves = {subject.name: subject.halves for subject in subjects}
    final = {(run.subject, run.estimator, run.seed): run.final("loss") for run in runs}
    seeds = sorted({run.seed for run in runs})
    calm = [loss for (_, estimator, _), loss in final.items() if estimator == "straight-through"]
    margin = ORDER * max(calm) / min(calm)
    right, wrong = ([s.name for s in subjects if s.trained and (s.halves == BOTH) is kept] for kept in (True, False))
    ratios = {
        f"{bad} / {good}, seed {seed}": final[bad, "rotation", seed] / final[good, "rotation", seed]
        for bad in wrong
        for good in right
        for seed in seeds
    }
    unlike = [
        f"{row.subject} with {row.estimator} shows {row.halves() or 'no known loss'} where {known} was known"
        for row in rows
        if row.halves() != (known := halves[row.subject] if row.estimator == "rotation" else BOTH)
    ]
    # Written as "not >=" so that a loss of NaN counts against.
    short = [f"{pair}: {ratio:.3g} times" for pair, ratio in ratios.items() if not ratio >= margin]
    loose = [
        f"{name}, seed {seed}: rotation / straight-through is {high:.3g}"
        for name in right
        for seed in seeds
        if not (high := final[name, "rotation", seed] / final[name, "straight-through", seed]) <= margin
    ]
    faults = unlike + short + loose
    if faults:
        return Reproduction(False, f"Not reproduced (margin {margin:.3g}): {'; '.join(faults)}.", margin, ratios)
    span = f"{min(ratios.values()):.0f} to {max(ratios.values()):.0f}"
    return Reproduction(
        True,
        f"Reproduced: trained with the rotation, the commitment loss of {' and '.join(wrong)} ends at {span} times "
        f"that of {' and '.join(right)} (margin {margin:.3g}, each of {len(seeds)} seeds): it is 1 × mse where "
        f"{1 + BETA:g} × mse is right, and gives the encoder no gradient.",
        margin,
        ratios,
    )
