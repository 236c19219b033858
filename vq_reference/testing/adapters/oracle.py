"""The oracle as an implementation, so that the laws are run on it like on any other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import vq_reference
from vq_reference.arguments import Array
from vq_reference.simvq import SimVQ
from vq_reference.testing.adapters.implementation import CAPABILITIES, Answer, Cotangent, Gradients, Implementation
from vq_reference.testing.precision import PRECISIONS


@dataclass(frozen=True)
class OracleLayer:
    """A `vq_reference.simvq.SimVQ`, called as the laws call."""

    reference: SimVQ

    def __call__(self, x: Array, cotangents: Sequence[Cotangent] = ()) -> Answer:
        """Forward and hand-derived backward."""
        output, indices, loss = (quantized := self.reference.forward(x)).output, quantized.indices, quantized.loss
        backward = []
        for cotangent in cotangents:
            at = self.reference.gradients(x, cotangent.output, cotangent.loss)
            parameters = {}
            for i, layer in enumerate(at.transform):
                parameters[f"{i}.weight"] = layer.weight
                if layer.bias is not None:
                    parameters[f"{i}.bias"] = layer.bias
            backward.append(Gradients(at.x, at.codebook, parameters))
        return Answer(output, indices, loss, tuple(backward))


def oracle() -> Implementation:
    """Return the oracle: float64, with every capability."""
    return Implementation(
        name="reference.oracle",
        build=OracleLayer,
        precision=PRECISIONS["float64"],
        capabilities=frozenset(CAPABILITIES),
        versions={"vq-reference": vq_reference.__version__, "numpy": np.__version__},
    )
