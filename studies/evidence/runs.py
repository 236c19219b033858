"""All training runs: which releases with which settings, for which question."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import product
from typing import Any

from studies.evidence.training import LEARNING_RATE, SEEDS, Data, Estimator, Half, Setting, Transform
from studies.evidence.worker import ask

FAULTY, FIXED, NEWEST = "1.20.10", "1.20.11", "1.32.0"
DATA: tuple[Data, ...] = ("digits", "speech")
ESTIMATORS: tuple[Estimator, ...] = ("rotation", "straight-through")
#: Transform and weight of the runs that ask for the cause. The last is what the report had.
CAUSE: tuple[tuple[Transform, float], ...] = (("linear", 1.0), ("mlp", 1.0), ("mlp", 1000.0))
#: The weight of the report is the last of them.
WEIGHTS = (0.25, 1.0, 10.0, 100.0, 1000.0)
LONG = 2000


def plan() -> Iterator[tuple[str | None, Setting]]:
    """Yield release (None: `vq_reference.nn`) and setting of every run."""
    for data, seed in product(DATA, SEEDS):
        # What inflates the loss: estimator, transform and encoder half, each with and without, all on one release.
        for (transform, weight), estimator in product(CAUSE, ESTIMATORS):
            change: Half = "added" if estimator == "rotation" else "removed"
            halves: tuple[Half, ...] = ("as released", change)
            for half in halves:
                yield FAULTY, Setting(data, estimator, transform, weight, half, seed=seed)
            if estimator == "rotation":
                yield FIXED, Setting(data, estimator, transform, weight, seed=seed)
        yield FAULTY, Setting(data, "rotation", ratio="one", seed=seed)
        # Whether it still happens, and which weight to take.
        for weight, estimator in product(WEIGHTS, ESTIMATORS):
            yield NEWEST, Setting(data, estimator, weight=weight, seed=seed)
        for weight in (1.0, 1000.0):
            yield NEWEST, Setting(data, "rotation", weight=weight, ratio="one", seed=seed)
        # Whether the rotation pays: that takes longer.
        for estimator in ESTIMATORS:
            yield NEWEST, Setting(data, estimator, seed=seed, steps=LONG)
        yield None, Setting(data, "rotation", seed=seed)


def measure(say: Callable[[str], None]) -> dict[str, Any]:
    """Do every run of the plan; return them with their settings."""
    planned = list(plan())
    runs = []
    for release in dict.fromkeys(release for release, _ in planned):
        settings = [asdict(setting) for other, setting in planned if other == release]
        say(f"{len(settings)} training runs on {release or 'vq_reference.nn'}")
        for setting, answer in zip(settings, ask(release, "train", settings), strict=True):
            runs.append({"release": release, **setting, **answer})
    return {"seeds": SEEDS, "learning_rate": LEARNING_RATE, "runs": runs}
