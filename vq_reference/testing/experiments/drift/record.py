"""What one environment makes of the pinned inputs, as a file: digests, and the values behind them."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vq_reference.arguments import Array
from vq_reference.testing.experiments.drift.pinned import NARROW_ONLY, SIZES, pinned
from vq_reference.testing.interface.implementation import Answer, Cotangent, Implementation
from vq_reference.testing.interface.precision import PRECISIONS
from vq_reference.testing.interface.subjects import TRAINED, Case, cotangents
from vq_reference.testing.run.targets import TargetUnavailable, implementation_of

ORACLE = "reference.oracle"
TARGETS = {ORACLE: ("float64",), "reference.SimVQ": tuple(PRECISIONS), "lucidrains.SimVQ": tuple(PRECISIONS)}


def write(path: Path) -> None:
    """Record this environment in a JSON file, and make its folder where there is none.

    `versions` holds those of Python, torch, NumPy and upstream; `made` a record for each target, dtype, size and
    estimator: quantity → digest, shape and values, or `lacks`, the words in which this torch refuses.
    """
    versions = {"python": platform.python_version(), "numpy": np.__version__, "torch": str(torch.__version__)}
    made: dict[str, Any] = {}
    for target, dtypes in TARGETS.items():
        for dtype in dtypes:
            try:
                tested = implementation_of(target, None if target == ORACLE else dtype)
            except TargetUnavailable as reason:
                made[f"{target} {dtype}"] = {"lacks": str(reason)}
                continue
            versions.update(tested.versions)
            for name, case in cases(dtype):
                made[f"{target} {dtype} {name}"] = _recorded(tested, case)
    save(path, versions, made)


def save(path: Path, versions: Mapping[str, str], made: Mapping[str, Any]) -> None:
    """Write a record, which `compare.Environment.read` reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"versions": dict(versions), "made": dict(made)}) + "\n", encoding="utf-8")


def cases(dtype: str) -> Iterator[tuple[str, Case]]:
    """Yield the pinned cases that have bounds in this dtype, named after their size and estimator."""
    for size in SIZES:
        for estimator in TRAINED:
            if size == "narrow" or dtype not in NARROW_ONLY:
                yield f"{size} {estimator}", pinned(size, estimator, PRECISIONS[dtype])


def quantities(answer: Answer) -> dict[str, Array]:
    """Return what is compared of an answer to two backwards, one from the output and one from the loss."""
    from_output, from_loss = answer.gradients
    made = {
        "output": answer.output,
        "indices": answer.indices,
        "ℓ": np.array(answer.loss),
        "gradient at x": from_output.x,
        "∂ℓ/∂x": from_loss.x,
        "∂ℓ/∂E": from_loss.codebook,
        "∂ℓ/∂W": from_loss.parameters.get("0.weight"),
    }
    return {name: values for name, values in made.items() if values is not None}


def starts(case: Case) -> list[Cotangent]:
    """Return the two backwards: from the output alone and from the loss alone."""
    g = cotangents(case)
    return [Cotangent(g, 0.0), Cotangent(np.zeros_like(g), 1.0)]


def _recorded(tested: Implementation, case: Case) -> dict[str, Any]:
    try:
        answer = tested.build(case.reference)(case.x, starts(case))
    except (RuntimeError, TypeError, NotImplementedError) as reason:
        return {"lacks": str(reason).split("\n")[0]}
    return {name: written(values) for name, values in quantities(answer).items()}


def written(values: Array) -> dict[str, Any]:
    """Return values as they stand in the file: the digest, the shape and every entry, as float64."""
    wide = np.ascontiguousarray(values, np.float64)
    return {
        "sha256": hashlib.sha256(wide.tobytes()).hexdigest(),
        "shape": list(wide.shape),
        "values": wide.ravel().tolist(),
    }
