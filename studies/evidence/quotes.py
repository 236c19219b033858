"""What the templates quote and is no plain entry of a JSON file: small computations on the numbers of the runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from studies.evidence import speech, verdicts
from studies.evidence.data_sets import CODES, DIM
from studies.evidence.questions import Runs, span
from studies.evidence.runs import DATA, ESTIMATORS, FAULTY, FIXED, LONG, NEWEST, WEIGHTS
from vq_reference.testing.laws.law import PROFILES
from vq_reference.testing.laws.verdict import Verdict

NOT_APPLICABLE = Verdict.NOT_APPLICABLE.value

Triple = tuple[float, float, float]


def quotes(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the names that a template may use beside those of the experiments."""
    found = Runs(data["runs"]["runs"])
    accuracy, silence = data["accuracy"], data["silence"]

    def times(data_set: str, transform: str, weight: float, estimator: str) -> Triple:
        return span(verdicts.factors(found, data_set, transform, weight, estimator))

    def cost(data_set: str) -> float:
        heavy, usual = (
            found.held_out("reconstruction", release=NEWEST, data=data_set, estimator="rotation", weight=weight)[1]
            for weight in (WEIGHTS[-1], 1.0)
        )
        return float(heavy / usual)

    def worst(module: str, over: str, quantity: str) -> float:
        return float(max(point[quantity] for point in accuracy[module][over]))

    def silent(module: str, encoder: str, kind: str, quantity: str) -> Triple:
        chosen = [row for row in silence["rows"] if row["module"] == module and row["encoder"] == encoder]
        return span([row["kinds"][kind][quantity] for row in chosen])

    def broken(level: str, release: str) -> list[str]:
        (row,) = (row for row in data["versions"]["releases"] if row["release"] == release)
        laws: list[str] = row[level]
        return laws

    def last_broken(law: str) -> str:
        releases = [row["release"] for row in data["versions"]["releases"] if law in (*row["must"], *row["should"])]
        return str(releases[-1])

    right = [p["norm"] for p in accuracy["upstream"]["norms"] if p["forward"] <= verdicts.ROUNDING]
    with np.load(speech.FILE) as file:
        settings = json.loads(str(file["settings"]))
    heavy = [
        {"release": NEWEST, "data": name, "estimator": estimator, "weight": WEIGHTS[-1]}
        for name in DATA
        for estimator in ESTIMATORS
    ]
    return {
        "runs": found,
        "settings": data["runs"],
        "verdict": verdicts.judge(data),
        "applying": [
            data["versions"]["laws"] - row["account"].get(NOT_APPLICABLE, 0)
            for row in data["versions"]["releases"]
            if not row["unusable"]
        ],
        "old": FAULTY,
        "fixed": FIXED,
        "newest": NEWEST,
        "new": data["claims"]["releases"][-1],
        "long": LONG,
        "weights": WEIGHTS,
        "codes": CODES,
        "width": DIM,
        "times": times,
        "cost": cost,
        "worst": worst,
        "silent": silent,
        "broken": broken,
        "last_broken": last_broken,
        "unusable": {row["release"]: row["unusable"] for row in data["versions"]["releases"]},
        "safe": [r["release"] for r in data["versions"]["releases"] if not r["must"] and not r["unusable"]],
        "same": verdicts.same_as_fixed(found),
        "largest_codes": max(found.held_out("codes", **setting)[2] for setting in heavy),
        "tokens": (tokens := _tokens(silence)),
        "seconds": speech.HOP * (tokens["speech"] + tokens["silence"]),
        "examples": PROFILES[data["versions"]["profile"]],
        "dilution": span([_diluted(row) for row in silence["rows"] if _usual(row)]),
        "good": {"low": min(right), "high": max(right)},
        "clamp": float(np.finfo(np.float32).max) ** -0.5,
        "sentences": settings["sentences"],
        "hop": settings["hop, s"],
        "espeak": settings["espeak-ng"],
    }


def _tokens(silence: Mapping[str, Any]) -> dict[str, float]:
    """Return how many frames there are of each kind, in all, and the share without speech in percent."""
    counts = {kind: look["count"] for kind, look in silence["rows"][0]["kinds"].items()}
    total = sum(counts.values())
    return {**counts, "all": total, "share": 100 * (total - counts["speech"]) / total}


def _usual(row: Mapping[str, Any]) -> bool:
    return bool(row["module"] == "upstream" and row["encoder"] == "bias")


def _diluted(row: Mapping[str, Any]) -> float:
    """Return the mean square over all frames over that of speech alone."""
    kinds = row["kinds"].values()
    everywhere = sum(kind["square"] * kind["count"] for kind in kinds) / sum(kind["count"] for kind in kinds)
    return float(everywhere / row["kinds"]["speech"]["square"])
