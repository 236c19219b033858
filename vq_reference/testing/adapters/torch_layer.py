"""The border for a torch module: NumPy float64 in and out, one forward, and autograd for the backwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vq_reference.arguments import Array
from vq_reference.testing.adapters.implementation import Answer, Cotangent, Gradients


class Returned(NamedTuple):
    """What a quantizer's forward gives, laid out as the laws need it: output (1, N, D), indices (1, N), loss scalar."""

    output: Tensor
    indices: Tensor | None
    loss: Tensor | None


@dataclass(frozen=True)
class TorchLayer:
    """A module, its codes set, called as the laws call.

    call: (module, x of (1, N, D)) → Returned. transform: the submodule whose output is the effective codebook, or None.
    parameters: the transform's parameters under the oracle's names.
    """

    module: nn.Module
    call: Callable[[nn.Module, Tensor], Returned]
    transform: nn.Module | None
    parameters: Mapping[str, Tensor]
    dtype: torch.dtype
    device: torch.device

    def __call__(self, x: Array, cotangents: Sequence[Cotangent] = ()) -> Answer:
        """Forward once with x as a leaf that asks for its gradient; backward once for each cotangent."""
        leaf = self._tensor(x).unsqueeze(0).requires_grad_()
        codes: list[Tensor] = []
        watched = self.transform.register_forward_hook(lambda *seen: codes.append(seen[2])) if self.transform else None
        try:
            returned = self.call(self.module, leaf)
        finally:
            if watched:
                watched.remove()
        gradients = tuple(self._backward(leaf, codes[-1:], returned, c) for c in cotangents)
        return Answer(
            output=_numpy(returned.output).reshape(x.shape),
            indices=None if returned.indices is None else returned.indices.detach().cpu().numpy().reshape(len(x)),
            loss=None if returned.loss is None else float(returned.loss.detach()),
            gradients=gradients,
        )

    def _backward(self, leaf: Tensor, codes: list[Tensor], returned: Returned, cotangent: Cotangent) -> Gradients:
        ends = [
            (value, start)
            for value, start in (
                (returned.output, self._tensor(cotangent.output).reshape(returned.output.shape)),
                (returned.loss, self._tensor(np.array(cotangent.loss))),
            )
            # a constant has no backward: whatever should have led through it is reported as None below
            if value is not None and value.requires_grad
        ]
        wanted = [leaf, *codes, *self.parameters.values()]
        found: Sequence[Tensor | None] = [None] * len(wanted)
        if ends:
            values, starts = zip(*ends, strict=True)
            starts = tuple(start.reshape(value.shape).to(value.dtype) for value, start in ends)
            asking = [t for t in wanted if t.requires_grad]
            grads = torch.autograd.grad(values, asking, starts, retain_graph=True, allow_unused=True)
            by_identity = {id(t): g for t, g in zip(asking, grads, strict=True)}
            found = [by_identity.get(id(t)) for t in wanted]
        arrays = [None if g is None else _numpy(g) for g in found]
        at_x = None if arrays[0] is None else arrays[0][0]
        at_codes = arrays[1] if codes else None
        at_parameters = arrays[1 + len(codes) :]
        return Gradients(at_x, at_codes, dict(zip(self.parameters, at_parameters, strict=True)))

    def _tensor(self, array: Array) -> Tensor:
        return torch.as_tensor(np.array(array)).to(self.device, self.dtype)


def _numpy(tensor: Tensor) -> Array:
    return np.asarray(tensor.detach().to("cpu", torch.float64).numpy())


def set_exactly(target: Tensor, values: Array) -> None:
    """Copy `values` into `target` in place; raise ValueError where its dtype would round or its shape differs."""
    if tuple(target.shape) != values.shape:
        raise ValueError(f"target has shape {tuple(target.shape)}: expected {values.shape}")
    with torch.no_grad():
        target.copy_(torch.as_tensor(np.array(values)))
    if not np.array_equal(_numpy(target), values):
        raise ValueError(f"{target.dtype} does not hold these values exactly: draw the case in that dtype")


def sequential(layers: Sequence[Any], dtype: torch.dtype, device: torch.device) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return the oracle's transform as torch layers with ReLU between, and its parameters by the oracle's names."""
    modules: list[nn.Module] = []
    parameters: dict[str, Tensor] = {}
    for i, layer in enumerate(layers):
        if i:
            modules.append(nn.ReLU())
        out_width, in_width = layer.weight.shape
        linear = nn.Linear(in_width, out_width, bias=layer.bias is not None, dtype=dtype, device=device)
        set_exactly(linear.weight, layer.weight)
        parameters[f"{i}.weight"] = linear.weight
        if layer.bias is not None:
            set_exactly(linear.bias, layer.bias)
            parameters[f"{i}.bias"] = linear.bias
        modules.append(linear)
    return (modules[0] if len(modules) == 1 else nn.Sequential(*modules)), parameters
