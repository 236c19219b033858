"""Make a case of a draft, or of a counterexample that a run has found, and renew its numbers: `vq-check case`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vq_reference.testing.cases.case import CaseRefused, PinnedCase, decoded, read, read_all, write
from vq_reference.testing.cases.expected import expected

# what a person says of a case; the rest is an input, which the draft holds too or a counterexample gives
SAID = ("id", "what", "formula", "link", "package", "first_bad", "last_bad", "first_good", "mutant", "flags")
INPUT = ("dtype", "layer", "x", "mask", "g_output", "g_losses")


def add(draft: Path, folder: Path, run: Path | None = None, law: str = "") -> Path:
    """Write the case that the draft describes to the folder, and return its path. Raises CaseRefused.

    draft: JSON with all of SAID, and all of INPUT unless `run` is given; `quantities` may name those that the case is
    about, else it is about all that its layer has. run: a file that `vq-check run --json` wrote, whose counterexample
    to `law` is the input. Expected numbers and bounds are the oracle's in either case.
    """
    data = _json(draft)
    if run is not None:
        data = {**data, **_counterexample(_json(run), law)}
    missing = [name for name in (*SAID, *INPUT) if name not in data]
    unknown = sorted(set(data) - {*SAID, *INPUT, "quantities"})
    if missing or unknown:
        raise CaseRefused(f"{draft.name}: missing {missing or 'nothing'}, unknown {unknown or 'nothing'}")
    given = decoded({name: data[name] for name in INPUT})
    said = {**{name: data[name] for name in SAID}, "flags": tuple(data["flags"])}
    case = _answered(PinnedCase(**said, **given, expected={}, bound={}), data.get("quantities"))
    folder.mkdir(parents=True, exist_ok=True)
    _require_new(case, read_all(folder))
    return write(case, folder)


def renew(name: str, folder: Path) -> Path:
    """Write a case anew, with the numbers and bounds that the oracle derives today, and return its path.

    For a formula that has been mended: what the case asks stays as it is. Raises CaseRefused.
    """
    path = folder / f"{name}.json"
    if not path.exists():
        raise CaseRefused(f"{path}: there is no such case")
    case = read(path)
    return write(_answered(case, list(case.expected)), folder)


def _answered(case: PinnedCase, quantities: list[str] | None) -> PinnedCase:
    """Return the case with the oracle's answers to those quantities; to all that its layer has, if None."""
    numbers = expected({name: getattr(case, name) for name in (*INPUT, "flags")})
    chosen = list(numbers) if quantities is None else quantities
    if set(chosen) - set(numbers):
        raise CaseRefused(f"quantities: {sorted(set(chosen) - set(numbers))} are not among {sorted(numbers)}")
    return replace(
        case,
        expected={name: numbers[name][0] for name in chosen},
        bound={name: np.broadcast_to(numbers[name][1], numbers[name][0].shape) for name in chosen},
    )


def _require_new(case: PinnedCase, others: Mapping[str, PinnedCase]) -> None:
    if case.id in others:
        raise CaseRefused(f"there is a case {case.id!r} already: choose another id")
    mine = _question(case)
    for other in others.values():
        if _question(other) == mine:
            raise CaseRefused(f"case {other.id!r} asks the same of the same layer: one of both is enough")


def _question(case: PinnedCase) -> str:
    """Return what a case asks, whatever it is called: its input, and the quantities that it is about."""
    data = case.as_json()
    return json.dumps([sorted(case.expected), *(data[name] for name in INPUT)], sort_keys=True)


def _counterexample(run: Mapping[str, Any], law: str) -> Mapping[str, Any]:
    outcomes = [outcome for each in run["runs"] for outcome in each["laws"] if outcome["law"] == law]
    found: list[Mapping[str, Any]] = [
        outcome["counterexample"]["case"]
        for outcome in outcomes
        if outcome["counterexample"] and outcome["counterexample"]["case"]
    ]
    if len(found) != 1:
        raise CaseRefused(f"law {law!r}: the run has {len(found)} counterexamples that can be pinned, and not one")
    return found[0]


def _json(path: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CaseRefused(f"{path}: {error}") from None
    return data
