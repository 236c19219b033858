"""An adapter for an estimator alone, a function (x, q) → out with no module around it, in torch or in JAX.

The laws ask for a layer. The choice that an estimator has not is made by the oracle, which every law then finds right:
what is checked is the output and its gradient.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vq_reference.arguments import Array
from vq_reference.estimators import Estimator
from vq_reference.nearest import nearest
from vq_reference.simvq import SimVQ
from vq_reference.testing.adapters.codegen.estimator_script import estimator_script, jax_estimator_script
from vq_reference.testing.adapters.declare.torch_quantizer import versions_of
from vq_reference.testing.adapters.torch.layer import Layouts, Returned, TorchLayer
from vq_reference.testing.interface.implementation import Answer, Call, Cotangent, Gradients, Implementation
from vq_reference.testing.interface.precision import PRECISIONS


def torch_estimator(
    f: Callable[[Tensor, Tensor], Tensor],
    estimator: Estimator,
    *,
    name: str = "",
    x: str = "N D",
    packages: Iterable[str] = (),
    dtype: str = "float32",
    device: str = "cpu",
) -> Implementation:
    """Describe a torch function of tokens and their codes, both laid out as `x` says, that returns the output.

    estimator: which one it is. packages, dtype, device: as in `torch_quantizer`.

    >>> torch_estimator(lambda x, q: x + (q - x).detach(), "straight_through", name="mine").name
    'mine'
    """

    def build(reference: SimVQ) -> TorchLayer:
        place, torch_dtype = torch.device(device), getattr(torch, dtype)
        codes = torch.tensor(reference.codebook, dtype=torch_dtype, device=place)

        def call(entering: Tensor) -> Returned:
            tokens = torch.movedim(entering, layouts.x.channel_axis, -1)
            flat = tokens.detach().reshape(-1, codes.shape[1]).to("cpu", torch.float64).numpy()
            indices = torch.as_tensor(nearest(flat, reference.codebook), device=place).reshape(tokens.shape[:-1])
            q = torch.movedim(codes[indices], -1, layouts.x.channel_axis)
            return Returned(f(entering, q), indices, None)

        return TorchLayer(torch.nn.Module(), call, torch_dtype, place, layouts=layouts)

    layouts = Layouts.of(x)
    made = _implementation(f, estimator, name, build, dtype, [*packages, "torch"])
    return replace(made, script=estimator_script(f, layouts.x, dtype))


def jax_estimator(
    f: Callable[[Any, Any], Any],
    estimator: Estimator,
    *,
    name: str = "",
    packages: Iterable[str] = (),
    dtype: str = "float32",
) -> Implementation:
    """Describe a JAX function of tokens and their codes, each (N, D), that returns the output. Needs jax.

    estimator, packages: as in `torch_estimator`. dtype: "float64" asks for jax_enable_x64.
    """
    jax: Any = importlib.import_module("jax")

    def build(reference: SimVQ) -> _JaxLayer:
        return _JaxLayer(f, reference.codebook, dtype, jax)

    made = _implementation(f, estimator, name, build, dtype, [*packages, "jax"])
    return replace(made, script=jax_estimator_script(f, dtype))


@dataclass(frozen=True)
class _JaxLayer:
    """A function in JAX, its codes set. It has no mode, no layout, no state, and its gradient is always there."""

    f: Callable[[Any, Any], Any]
    codes: Array
    dtype: str
    jax: Any

    def __call__(self, x: Array, cotangents: Sequence[Cotangent] = (), how: Call = Call()) -> Answer:
        """Call the function once, and its vector-Jacobian product once for each cotangent."""
        indices = nearest(x, self.codes)
        tokens, q = (self.jax.numpy.asarray(each, self.dtype) for each in (x, self.codes[indices]))
        output, backward = self.jax.vjp(lambda entering: self.f(entering, q), tokens)
        starts = [self.jax.numpy.asarray(cotangent.output, output.dtype) for cotangent in cotangents]
        gradients = [Gradients(np.asarray(backward(start)[0], np.float64), None, {}) for start in starts]
        return Answer(np.asarray(output, np.float64), indices, None, tuple(gradients))

    def decode(self, indices: Array) -> Array:
        """Return the codes at these indices."""
        return np.asarray(self.codes[indices])

    def state(self) -> dict[str, Array]:
        """Return nothing: a function keeps none."""
        return {}

    def overwrite_returned(self) -> None:
        """Return without doing anything: JAX's arrays cannot be written to."""


def _implementation(
    f: Any, estimator: Estimator, name: str, build: Any, dtype: str, packages: Iterable[str]
) -> Implementation:
    return Implementation(
        name=name or getattr(f, "__name__", "estimator").replace("<lambda>", "estimator"),
        build=build,
        precision=PRECISIONS[dtype],
        capabilities=frozenset({f"estimator:{estimator}", "indices"}),
        versions=versions_of(packages),
    )
