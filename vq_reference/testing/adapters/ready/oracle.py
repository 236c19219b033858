"""The oracle as an implementation, so that the laws are run on it like on any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

import vq_reference
from vq_reference.arguments import Array
from vq_reference.simvq import SimVQ
from vq_reference.testing.interface.auxiliary import TERMS
from vq_reference.testing.interface.implementation import (
    CAPABILITIES,
    Answer,
    Call,
    Cotangent,
    Gradients,
    Implementation,
)
from vq_reference.testing.interface.precision import PRECISIONS
from vq_reference.testing.interface.stateful import LASTING

# it has no layout, no dtype but float64, and no state that lasts
CLOSED = frozenset(CAPABILITIES) - {"form", *LASTING, *TERMS}


@dataclass
class OracleLayer:
    """A `vq_reference.simvq.SimVQ`, called as the laws call. It has no mode, no layout and no memory."""

    reference: SimVQ

    def __call__(self, x: Array, cotangents: Sequence[Cotangent] = (), how: Call = Call()) -> Answer:
        """Forward and hand-derived backward."""
        quantized = self.reference.forward(x)
        backward = []
        for cotangent in cotangents:
            at = self.reference.gradients(x, cotangent.output, cotangent.loss)
            parameters: dict[str, Array | None] = {}
            for i, layer in enumerate(at.transform):
                parameters[f"{i}.weight"] = layer.weight
                if layer.bias is not None:
                    parameters[f"{i}.bias"] = layer.bias
            backward.append(Gradients(at.x, at.codebook, parameters))
        return Answer(quantized.output, quantized.indices, quantized.loss, tuple(backward), input=x.copy())

    def decode(self, indices: Array) -> Array:
        """Return the codes at these indices, (N, D)."""
        return np.asarray(self.reference.codebook[indices])

    def state(self) -> Mapping[str, Array]:
        """Return the frozen codes and the transform's parameters."""
        named = {"frozen_codebook": self.reference.frozen_codebook.copy()}
        for i, layer in enumerate(self.reference.transform):
            named[f"{i}.weight"] = layer.weight.copy()
        return named

    def overwrite_returned(self) -> None:
        """Return without doing anything: every call makes new arrays."""

    def step(self, reference: SimVQ) -> None:
        """Be another layer from now on."""
        self.reference = reference


def oracle() -> Implementation:
    """Return the oracle: float64, with every capability but a layout."""
    return Implementation(
        name="reference.oracle",
        build=OracleLayer,
        precision=PRECISIONS["float64"],
        capabilities=CLOSED,
        versions={"vq-reference": vq_reference.__version__, "numpy": np.__version__},
    )
