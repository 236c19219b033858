"""Small steps between NumPy float64 and torch: exact or refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vq_reference.arguments import Array
from vq_reference.testing.adapters.torch.places import paths


def array_of(tensor: Tensor) -> Array:
    """Return the values as float64."""
    return np.array(tensor.detach().to("cpu", torch.float64).numpy())  # a copy: laws overwrite what came back


def set_exactly(target: Tensor, values: Array) -> None:
    """Copy `values` into `target` in place; raise ValueError where its dtype would round or its shape differs."""
    if tuple(target.shape) != values.shape:
        raise ValueError(f"target has shape {tuple(target.shape)}: expected {values.shape}")
    with torch.no_grad():
        target.copy_(torch.as_tensor(np.array(values)))
    if not np.array_equal(array_of(target), values):
        raise ValueError(f"{target.dtype} does not hold these values exactly: draw the case in that dtype")


def overwrite(returned: Any) -> None:
    """Overwrite, in place, every tensor in `returned`: floats by NaN, integers and booleans by their complement."""
    with torch.no_grad():
        for _, tensor in paths(returned):
            for axis, stride in enumerate(tensor.stride()):
                if stride == 0 and tensor.shape[axis] > 1:  # several entries in one place: torch writes to one at most
                    tensor = tensor.narrow(axis, 0, 1)
            if tensor.dtype.is_floating_point:
                tensor.fill_(torch.nan)
            else:
                tensor.bitwise_not_()


def turning(dim: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return P, (dim, dim), for projections that round nothing and are not the identity: P'P = I, P'P x = x exactly.

    >>> turning(3, torch.float32, torch.device("cpu"))
    tensor([[ 0.,  0.,  1.],
            [ 0., -1.,  0.],
            [ 1.,  0.,  0.]])
    """
    signs = torch.ones(dim, dtype=dtype, device=device)
    signs[1::2] = -1
    return torch.diag(signs).flip(1)


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
