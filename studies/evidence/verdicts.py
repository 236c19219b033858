"""What the runs say of each claim, decided from their numbers: a word, and the grounds that it stands on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from studies.evidence.questions import Runs
from studies.evidence.runs import CAUSE, DATA, ESTIMATORS, FAULTY, FIXED, NEWEST

#: What "inflated" and "explodes" are taken to mean, as in `vq_reference.testing.experiments.issue_177.reproduction`.
ORDER = 10.0
#: Rounding of R and of λRx in float32: three terms of D = 16 products each, with factors of 2, is under 8·D roundings
#: of numbers of the order of 1.
ROUNDING = 8 * 16 * 2.0**-24


@dataclass(frozen=True)
class Verdict:
    """word: the verdict where all grounds hold. grounds: what must be so, and whether it was."""

    word: str
    grounds: Mapping[str, bool]

    @property
    def holds(self) -> bool:
        """Whether every ground held."""
        return all(self.grounds.values())

    def __str__(self) -> str:
        missing = [ground for ground, held in self.grounds.items() if not held]
        return f"not settled by these runs ({'; '.join(missing)})" if missing else self.word


def judge(data: Mapping[str, Any]) -> dict[str, Verdict]:
    """Return the verdict on each claim, by its letter."""
    releases = data["claims"]["releases"]
    rotations = [row["rotation"] for row in releases]
    losses = {row["release"]: row["loss"] for row in releases}
    found = Runs(data["runs"]["runs"])
    return {
        "a": Verdict(
            "refuted",
            {
                "no release draws a random number": not any(r["draws"] for r in rotations),
                "calls do not differ in a bit": not any(r["spread"] for r in rotations),
                "it is the rotation of the paper": all(r["error"] <= ROUNDING for r in rotations),
            },
        ),
        "b": Verdict(
            "refuted for a step; over training the relative distance ends larger, the absolute one smaller",
            {
                "the relative error ends larger with the rotation": all(
                    _end_of(found, "relative_error", data_set, "rotation")
                    > _end_of(found, "relative_error", data_set, "straight-through")
                    for data_set in DATA
                ),
                "the loss ends smaller with it": all(
                    _end_of(found, "loss", data_set, "rotation") < _end_of(found, "loss", data_set, "straight-through")
                    for data_set in DATA
                ),
                "the input is left as it was": all(r["input_kept"] for r in rotations),
                "the same codes are chosen": all(r["same_indices"] for r in rotations),
                "the value is the code to rounding": all(
                    error <= ROUNDING for r in rotations for error in r["value"].values()
                ),
            },
        ),
        "c": Verdict(
            "half right: the loss was wrong, and the gradient path was not why",
            {
                "the loss was wrong in 1.20.0 to 1.20.10": [row["rotation"]["halves"] for row in losses.values()]
                == ["none", "codebook", "codebook", "both", "both"],
                "with straight-through it was right": {row["straight-through"]["halves"] for row in losses.values()}
                == {"both"},
                "since 1.20.11 both estimators have one loss, bit by bit": all(
                    losses[release]["rotation"] == losses[release]["straight-through"]
                    for release in losses
                    if losses[release]["rotation"]["halves"] == "both"
                ),
                "straight-through inflates without the half": _inflates(found, "straight-through", "removed"),
                "the rotation does not with it": not _inflates(found, "rotation", "added", any_seed=True),
            },
        ),
        "d": Verdict(
            "refuted as the cause",
            {
                "the output sends the transform no gradient": not any(r["reaches_codes"] for r in rotations),
                "a linear transform inflates as well": all(
                    factor > 1 for data_set in DATA for factor in factors(found, data_set, "linear", 1.0, "rotation")
                ),
                "and does so without the rotation": all(
                    factor > 1
                    for data_set in DATA
                    for factor in factors(found, data_set, "linear", 1.0, "straight-through")
                ),
            },
        ),
        "e": Verdict(
            "confirmed, for the loss",
            {
                "1.20.11 has both halves": losses[FIXED]["rotation"]["halves"] == "both",
                "1.20.10 with the half added is 1.20.11, bit by bit": all(same_as_fixed(found)),
            },
        ),
        "f": Verdict(
            "not the bug: a loss without a scale rises in right code too",
            {
                "the newest release has both halves": losses[NEWEST]["rotation"]["halves"] == "both",
                "its loss rises at first": all(
                    max(curve["loss"]) > curve["loss"][0] for curve in _curves(found, *ESTIMATORS)
                ),
                "the relative error falls": all(
                    curve["relative_error"][-1] < curve["relative_error"][0] for curve in _curves(found, *ESTIMATORS)
                ),
                "the scale rises with it": all(
                    curve["norm_x"][-1] > curve["norm_x"][0] for curve in _curves(found, "straight-through")
                ),
                "without λ the loss is no smaller": all(
                    found.end("loss", release=NEWEST, data=data_set, estimator="rotation", ratio="one")[1]
                    >= found.end("loss", release=NEWEST, data=data_set, estimator="rotation")[1]
                    for data_set in DATA
                ),
            },
        ),
    }


def factors(found: Runs, data: str, transform: str, weight: float, estimator: str) -> list[float]:
    """Return how much larger ℓ ends without the encoder half than with it, for each seed, all on the faulty release."""
    halves = ("as released", "added") if estimator == "rotation" else ("removed", "as released")
    setting = {"release": FAULTY, "data": data, "transform": transform, "weight": weight, "estimator": estimator}
    without, with_half = (found.ends("loss", **setting, encoder_half=half) for half in halves)
    return [high / low for high, low in zip(without, with_half, strict=True)]


def _end_of(found: Runs, curve: str, data_set: str, estimator: str) -> float:
    """Return where a curve of the newest release ends, at w = 1, in the middle of the seeds."""
    return found.end(curve, release=NEWEST, data=data_set, estimator=estimator)[1]


def same_as_fixed(found: Runs) -> list[bool]:
    """Return for each run of the repaired release whether the faulty one, half added, had its loss at every step."""
    same = []
    for data in DATA:
        for transform, weight in CAUSE:
            setting = {"data": data, "estimator": "rotation", "transform": transform, "weight": weight}
            added = found.of(release=FAULTY, encoder_half="added", **setting)
            fixed = found.of(release=FIXED, **setting)
            same += [a["digest"] == b["digest"] for a, b in zip(added, fixed, strict=True)]
    return same


def _curves(found: Runs, *estimators: str) -> list[dict[str, list[float]]]:
    """Return the curves of the newest release at w = 1 and its usual length, all data sets and seeds."""
    chosen = [found.of(release=NEWEST, data=data, estimator=estimator) for data in DATA for estimator in estimators]
    return [run["curves"] for runs in chosen for run in runs]


def _inflates(found: Runs, estimator: str, half: str, any_seed: bool = False) -> bool:
    """Say whether ℓ at weight 1000 ends an order above that of straight-through as released, for every seed."""
    times = []
    for data in DATA:
        setting = {"release": FAULTY, "data": data, "weight": 1000.0}
        calm = found.ends("loss", estimator="straight-through", **setting)
        ends = found.ends("loss", estimator=estimator, encoder_half=half, **setting)
        times += [end / other for end, other in zip(ends, calm, strict=True)]
    return any(t >= ORDER for t in times) if any_seed else all(t >= ORDER for t in times)
