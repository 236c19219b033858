"""The experiments by name: what ``python -m studies.evidence`` can measure, and the file that each writes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

from studies.evidence import runs, versions
from studies.evidence.data_sets import DATA_SETS, variance
from studies.evidence.runs import ESTIMATORS, FAULTY, FIXED, NEWEST
from studies.evidence.silence import ENCODERS
from studies.evidence.training import SEEDS
from studies.evidence.worker import ask

Say = Callable[[str], None]
#: The releases on both sides of every change of the loss, and the newest.
CHANGES = ("1.20.0", "1.20.1", FAULTY, FIXED, NEWEST)


def claims(say: Say) -> dict[str, Any]:
    """Measure the rotation and the loss of each of `CHANGES` on the fixed input."""
    rows = []
    for release in CHANGES:
        say(f"rotation and loss of {release}")
        losses = ask(release, "loss", [{"estimator": estimator} for estimator in ESTIMATORS])
        (rotation,) = ask(release, "rotation", [{}])
        rows.append({"release": release, "rotation": rotation, "loss": dict(zip(ESTIMATORS, losses, strict=True))})
    return {"releases": rows}


def accuracy(say: Say) -> dict[str, Any]:
    """Measure the error of the newest release and of `vq_reference.nn` over angle and norm."""
    found = {}
    for name, release in (("upstream", NEWEST), ("reference", None)):
        say(f"errors of {name}")
        (found[name],) = ask(release, "accuracy", [{}])
    return {"release": NEWEST, **found}


def silence(say: Say) -> dict[str, Any]:
    """Measure what silence and padding do to the newest release and to `vq_reference.nn`."""
    settings = [{"encoder": encoder, "seed": seed} for encoder, seed in product(ENCODERS, SEEDS)]
    rows = []
    for name, release in (("upstream", NEWEST), ("reference", None)):
        say(f"silence and padding in {name}")
        answers = ask(release, "silence", settings)
        rows += [{"module": name, **s, "kinds": a} for s, a in zip(settings, answers, strict=True)]
    return {"release": NEWEST, "seeds": SEEDS, "rows": rows}


def data_sets(_: Say) -> dict[str, Any]:
    """Return how much there is of each data set, and what the best constant reaches on its held-out part."""
    return {
        name: {"held_out": list(data.held_out.shape), "variance": variance(data)}
        for name, data in ((name, make()) for name, make in DATA_SETS.items())
    }


def benchmark(say: Say) -> dict[str, Any]:
    """Run the benchmark of `vq_reference.nn.SimVQ` against the newest release."""
    from vq_reference.testing.experiments.issue_177.measured import PACKAGE
    from vq_reference.testing.releases.fetch import fetch

    say("benchmark")
    root = Path(__file__).resolve().parents[2]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "benchmark.json")
        command = [sys.executable, "-m", "benchmarks.sim_vq", "--json", str(path), "--repeats", "3"]
        release = fetch(f"{PACKAGE}=={NEWEST}")
        subprocess.run(command, cwd=root, env=release.environment(), stdout=subprocess.DEVNULL, check=True)
        measured: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return {"setting": measured["versions"], "rows": measured["rows"]}


EXPERIMENTS: dict[str, Callable[[Say], dict[str, Any]]] = {
    "data_sets": data_sets,
    "claims": claims,
    "accuracy": accuracy,
    "silence": silence,
    "runs": runs.measure,
    "versions": versions.measure,
    "benchmark": benchmark,
}
