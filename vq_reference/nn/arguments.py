"""What the modules accept: checks that name the argument, its value, what was expected and what to do."""

from __future__ import annotations

import math
from collections.abc import Collection
from numbers import Real

import torch
from torch import Tensor

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def require_size(name: str, size: int) -> None:
    """Raise TypeError unless `size` is an integer, ValueError unless it is at least 1."""
    if not isinstance(size, int):
        raise TypeError(f"{name} is {size!r}: expected an integer")
    if size < 1:
        raise ValueError(f"{name} is {size}: expected at least 1")


def require_weight(name: str, weight: float) -> None:
    """Raise TypeError unless `weight` is a number, ValueError unless it is finite and not negative."""
    if not isinstance(weight, Real):
        raise TypeError(f"{name} is {weight!r}: expected a number")
    if not 0 <= weight < math.inf:
        raise ValueError(f"{name} is {weight}: expected a finite number, 0 or more")


def require_one_of(name: str, value: str, choices: Collection[str]) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}: expected one of {', '.join(map(repr, choices))}")


def require_floating(name: str, value: Tensor) -> None:
    """Raise TypeError unless `value` has a floating dtype."""
    if not value.dtype.is_floating_point:
        raise TypeError(f"{name} has dtype {value.dtype}: expected a floating dtype")


def require_integers(name: str, value: Tensor, what: str) -> None:
    """Raise TypeError unless `value` has an integer dtype; what: they are, for the message."""
    if value.dtype.is_floating_point or value.dtype.is_complex or value.dtype == torch.bool:
        raise TypeError(f"{name} has dtype {value.dtype}: expected an integer dtype, {what}")


def require_indices(indices: Tensor) -> None:
    """Raise TypeError unless `indices` has an integer dtype."""
    require_integers("indices", indices, "as forward returns")


def require_tokens(x: Tensor, dim: int, channel_first: bool) -> None:
    """Raise TypeError unless x is a floating tensor, ValueError unless it is (..., dim) or (B, dim, ...)."""
    if not isinstance(x, Tensor):
        raise TypeError(f"x is a {type(x).__name__}: expected a torch.Tensor")
    if x.dtype not in DTYPES:
        raise TypeError(f"x has dtype {x.dtype}: expected one of {', '.join(map(str, DTYPES))}")
    axis, form = (1, "(B, dim, ...)") if channel_first else (-1, "(..., dim)")
    if x.ndim < 2 or x.shape[axis] != dim:
        hint = " (channel_first says on which axis the channels lie)" if dim in x.shape[1:] else ""
        raise ValueError(f"x has shape {tuple(x.shape)}: expected {form} with dim = {dim}{hint}")
