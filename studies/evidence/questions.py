"""The runs of ``docs/data/runs.json`` by question: what the figures draw and the page quotes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from studies.evidence import record

Run = dict[str, Any]


class Runs:
    """All runs, to be chosen from by their settings."""

    def __init__(self, runs: list[Run]) -> None:
        self.runs = runs

    def of(self, **setting: Any) -> list[Run]:
        """Return the runs with these settings, one a seed; what is not named is as `training.Setting` has it.

        Raises LookupError where there are none, or several for one seed: a figure must not draw less than it says.
        """
        wanted = {**DEFAULTS, **setting}
        found = [run for run in self.runs if all(run[name] == value for name, value in wanted.items())]
        seeds = [run["seed"] for run in found]
        if not found or len(set(seeds)) != len(seeds):
            raise LookupError(f"{wanted} has runs with seeds {seeds}: expected one for each seed")
        return found

    def end(self, curve: str, **setting: Any) -> tuple[float, float, float]:
        """Return smallest, middle and largest of `ends`."""
        return span(self.ends(curve, **setting))

    def ends(self, curve: str, **setting: Any) -> list[float]:
        """Return for each seed a curve's mean over its last tenth: one batch alone is a noisy end."""
        return [_end(run["curves"][curve]) for run in self.of(**setting)]

    def start(self, curve: str, **setting: Any) -> tuple[float, float, float]:
        """Return smallest, middle and largest over the seeds of a curve's first point."""
        return span([run["curves"][curve][0] for run in self.of(**setting)])

    def peak(self, curve: str, **setting: Any) -> tuple[float, float, float]:
        """Return smallest, middle and largest over the seeds of a curve's highest point."""
        return span([max(run["curves"][curve]) for run in self.of(**setting)])

    def held_out(self, what: str, **setting: Any) -> tuple[float, float, float]:
        """Return smallest, middle and largest over the seeds of what was reached on held-out data."""
        return span([run["held_out"][what] for run in self.of(**setting)])


DEFAULTS = {"transform": "mlp", "weight": 1.0, "encoder_half": "as released", "ratio": "as released", "steps": 300}


def runs() -> Runs:
    """Return those of the committed file."""
    return Runs(record.read("runs")["runs"])


def _end(values: list[float]) -> float:
    tail = values[-max(1, len(values) // 10) :]
    return sum(tail) / len(tail)


def span(values: Sequence[float]) -> tuple[float, float, float]:
    """Return smallest, middle and largest of the values of a few seeds."""
    ordered = sorted(values)
    return ordered[0], ordered[len(ordered) // 2], ordered[-1]
