"""The border between the laws and whatever they check: a call, and a vector-Jacobian product, in NumPy float64.

A law states a layer as a `vq_reference.simvq.SimVQ`, asks the implementation to build that layer, and calls it. Nothing
here knows torch: a JAX or MLX implementation fits as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from vq_reference.arguments import Array
from vq_reference.simvq import SimVQ
from vq_reference.testing.precision import Precision

# What an implementation may declare that it has. A law that needs more is not applicable to it, never broken.
CAPABILITIES = {
    "estimator:straight_through": "a straight-through gradient",
    "estimator:rotation": "the rotation trick",
    "estimator:none": "an output without estimator",
    "indices": "the chosen indices",
    "loss": "a commitment loss in two halves",
    "codebook_gradient": "the gradient at the effective codebook",
    "transform": "a trained linear transform of frozen codes",
    "mlp": "a transform of several layers",
}


class Cotangent(NamedTuple):
    """What a backward starts from: the gradient at the output, (N, D), and at the loss."""

    output: Array
    loss: float


class Gradients(NamedTuple):
    """Where a backward arrives. None says that no gradient path leads there, which is not the same as zero.

    x: (N, D). codebook: at the effective codes, (K, D). parameters: at each parameter of the transform, by name, in the
    order of the oracle's layers ("0.weight", "0.bias", "1.weight", …).
    """

    x: Array | None
    codebook: Array | None
    parameters: Mapping[str, Array | None]


class Answer(NamedTuple):
    """What one call of a layer gives: output (N, D), indices (N,) and loss where declared, and one backward each."""

    output: Array
    indices: Array | None
    loss: float | None
    gradients: tuple[Gradients, ...]


class Layer(Protocol):
    """A built layer: x is (N, D) float64, representable in the implementation's dtype."""

    def __call__(self, x: Array, cotangents: Sequence[Cotangent] = ()) -> Answer:
        """Run forward once, and backward once for each cotangent."""
        ...


@dataclass(frozen=True)
class Implementation:
    """One implementation, as the laws see it.

    name: as it is called on the command line and in reports.
    build: takes the wanted layer, returns it. Codes, β, weight and estimator are those of the argument, exactly.
    precision: the dtype it computes in.
    capabilities: which of CAPABILITIES it has.
    versions: package name → version, for the report.
    """

    name: str
    build: Callable[[SimVQ], Layer]
    precision: Precision
    capabilities: frozenset[str]
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = self.capabilities - set(CAPABILITIES)
        if unknown:
            raise ValueError(f"capabilities has {sorted(unknown)}: expected some of {sorted(CAPABILITIES)}")

    def lacks(self, needs: frozenset[str]) -> list[str]:
        """Return, in words, what a law needs and this implementation does not declare."""
        return [CAPABILITIES[need] for need in sorted(needs - self.capabilities)]
