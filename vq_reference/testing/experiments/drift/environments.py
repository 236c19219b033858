"""Two environments, quantity by quantity: bitwise equal, equal within the bound, or moved.

The bounds are those of the laws: each of two values is allowed the rounding of its own computation, so that they may
differ by twice the bound, whichever is the nearer to the mathematics.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vq_reference.arguments import Array
from vq_reference.testing.experiments.drift.record import ORACLE, cases
from vq_reference.testing.interface.precision import PRECISIONS
from vq_reference.testing.interface.subjects import cotangents
from vq_reference.testing.laws.bounds import bounds
from vq_reference.testing.laws.expected.commitment_loss import loss_of
from vq_reference.testing.run.targets import implementation_of


@dataclass(frozen=True)
class Environment:
    """One file of `record.write`: versions by package, and what was made of each pinned case."""

    name: str
    versions: Mapping[str, str]
    made: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Environment:
        """Read a file; its name is that of the environment. Raises OSError or ValueError that names it."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            return cls(path.stem, data["versions"], data["made"])
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not a record of `vq-check drift --write` ({error!r})") from error


@dataclass(frozen=True)
class Change:
    """How far the values of one pinned case differ between two environments.

    worst: largest |a − b| ÷ (2·bound) over its quantities: 0 where all are equal to the bit, up to 1 within the bound.
    of: the quantity that it belongs to. lacks: what one environment says that it cannot do; then there is no number.
    """

    worst: float = 0.0
    of: str = ""
    lacks: str = ""

    @property
    def moved(self) -> bool:
        """Whether the difference is more than rounding."""
        return not self.lacks and not self.worst <= 1

    def __str__(self) -> str:
        if self.lacks:
            return "lacks"
        if not self.of:
            return "="
        return f"{'moved' if self.moved else '≈'} {self.worst:.2g} {self.of}"


def change(key: str, base: Environment, other: Environment) -> Change:
    """Compare one pinned case, named by target, dtype, size and estimator, in two environments."""
    lacking = {"lacks": "not recorded"}
    one, two = (environment.made.get(key, lacking) for environment in (base, other))
    if "lacks" in one or "lacks" in two:
        return Change(lacks=str(one.get("lacks") or two.get("lacks")))
    found = Change()
    for name, limit in limits(key).items():
        if name not in one or name not in two:
            found = Change(np.inf, name)  # a gradient that leads nowhere is not recorded
            break
        if one[name]["sha256"] == two[name]["sha256"]:
            continue
        a, b = (np.reshape(written[name]["values"], written[name]["shape"]) for written in (one, two))
        # zeros of two signs differ in the digest and not in value
        ratio = np.divide(np.abs(a - b), 2 * limit, out=np.where(a == b, 0.0, np.inf), where=np.asarray(limit) > 0)
        worst = float(np.max(np.nan_to_num(ratio, nan=np.inf)))
        if not found.of or worst > found.worst:
            found = Change(worst, name)
    return found


@functools.cache
def limits(key: str) -> dict[str, Array]:
    """Return the bound on each quantity of a pinned case, in the shape of the quantity."""
    target, dtype, name = key.split(" ", 2)
    case = dict(cases(dtype))[name]
    # every target of drift has the loss of two halves; the oracle stands in for those that cannot be imported here
    implementation = implementation_of(ORACLE if target == ORACLE else "reference.SimVQ", *_asked(target, dtype))
    u, indices = PRECISIONS[dtype].unit_roundoff, case.reference.forward(case.x).indices
    loss, q = loss_of(implementation, case, indices), case.codes[indices]
    return {
        "output": bounds.output(case.x, q, case.reference.estimator, u),
        "indices": np.zeros(len(indices)),
        "ℓ": np.array(loss.value_bound),
        "gradient at x": bounds.estimator_gradient(case.x, q, cotangents(case), case.reference.estimator, u),
        "∂ℓ/∂x": loss.at_x_bound,
        "∂ℓ/∂E": loss.at_codebook_bound,
        "∂ℓ/∂W": loss.at_transform_bound["0.weight"],
    }


def _asked(target: str, dtype: str) -> list[str]:
    return [] if target == ORACLE else [dtype]
