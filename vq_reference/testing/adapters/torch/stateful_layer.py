"""The border of lasting layers for torch modules: one call, its backward, and ways to carry a module's state on."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from packaging.version import Version
from torch import Tensor, nn

from vq_reference.arguments import Array
from vq_reference.ema import Statistics
from vq_reference.testing.adapters.torch import plain
from vq_reference.testing.adapters.torch.tensors import array_of
from vq_reference.testing.interface.stateful import NOT_SAVED, Carry, LastingLayer, Reached, Reply, Start, Use, Wanted

GRADIENT = "gradient at "
SEED = 0  # of a layer that stays as it is constructed


class Given(NamedTuple):
    """What a forward gives, channels last: output (..., dim), indices (...) or (..., H or L), losses () or (L,)."""

    output: Tensor
    indices: Tensor
    losses: Tensor


@dataclass(frozen=True)
class Access:
    """How a kind of module is used; functions of the module, so that they fit every copy of it.

    call: (module, x, mask, lengths) → Given. codes: → (G, K, D). decode: (module, indices) → outputs, channels last.
    statistics: → counts (K,) and sums (K, D) of each codebook.
    """

    call: Callable[[nn.Module, Tensor, Tensor | None, Tensor | None], Given]
    codes: Callable[[nn.Module], Tensor]
    decode: Callable[[nn.Module, Tensor], Tensor] | None = None
    statistics: Callable[[nn.Module], Sequence[tuple[Tensor, Tensor]]] = lambda module: ()


@dataclass(frozen=True)
class LastingTorch:
    """A module as a `LastingLayer`.

    dtype: of its tokens. autocast: whether it runs under autocast, in bfloat16. compiled: what is called in its place.
    """

    module: nn.Module
    access: Access
    dtype: torch.dtype = torch.float32
    autocast: bool = False
    compiled: Any = None

    def __call__(
        self,
        x: Array,
        start: Start | None = None,
        use: Use = Use(),
        mask: Array | None = None,
        lengths: Array | None = None,
    ) -> Reply:
        """Forward, and backward from `start`."""
        given = plain.called(
            self.module,
            self.access.call,
            np.array(x, order="C"),
            leading_of(x, use),
            self.dtype,
            start,
            use.training,
            use.with_grad,
            mask,
            lengths,
            self.autocast,
            self.compiled,
            use.salt,
            use.checkpointed,
            use.asks,
        )
        gradients = {name.removeprefix(GRADIENT): value for name, value in given.items() if name.startswith(GRADIENT)}
        reached = None if start is None else Reached(gradients.pop("x"), gradients)
        return Reply(given["output"], given["indices"], given["losses"], reached, given["dtypes"], given["shapes"])

    def decode(self, indices: Array) -> Array:
        """Return the outputs, (N, dim), or in the shape that wrong code gives them."""
        if self.access.decode is None:
            raise TypeError("this layer has no decode: declare one, or leave out the capability")
        decoded: Array = plain.decoded(self.module, self.access.decode, indices)
        return decoded

    def codes(self) -> Array:
        """Return the effective codes, (G, K, D)."""
        return array_of(self.access.codes(self.module))

    def statistics(self) -> tuple[Statistics, ...]:
        """Return N and m of each codebook."""
        return tuple(Statistics(array_of(n), array_of(m)) for n, m in self.access.statistics(self.module))

    def state(self) -> Mapping[str, Array]:
        """Return every parameter and buffer; the name of one that no state_dict holds says so."""
        return state_of(self.module)


def state_of(module: nn.Module) -> dict[str, Array]:
    """Return every parameter and buffer; the name of one that no state_dict holds says so."""
    caches = plain.unsaved(module)
    return {f"{name}{NOT_SAVED}" if name in caches else name: each for name, each in plain.state(module).items()}


@contextlib.contextmanager
def constructing(wanted: Wanted) -> Iterator[None]:
    """Let a constructor draw the same numbers each time, where nothing is placed over them."""
    with contextlib.nullcontext() if wanted.placed else torch.random.fork_rng(devices=()):
        if not wanted.placed:
            torch.default_generator.manual_seed(SEED)
        yield


def load_state(layer: LastingLayer, other: LastingLayer) -> LastingLayer:
    """Load the state of `layer` into `other`."""
    plain.load_state(module_of(layer), module_of(other))
    return other


def deepcopied(layer: LastingLayer, other: LastingLayer) -> LastingLayer:
    """Copy the module."""
    return replace(cast(LastingTorch, layer), module=plain.deepcopied(module_of(layer), module_of(other)))


def pickled(layer: LastingLayer, other: LastingLayer) -> LastingLayer:
    """Send the module through `torch.save` as a whole."""
    return replace(cast(LastingTorch, layer), module=plain.pickled(module_of(layer), module_of(other)))


CARRY: Mapping[str, Carry] = {"state_dict": load_state, "deepcopy": deepcopied, "pickle": pickled}


def cast_to(layer: LastingLayer, kind: str) -> LastingLayer:
    """Return the layer for tokens of another dtype: a module converted to it, or left as it is under autocast."""
    if kind == "autocast":
        return replace(cast(LastingTorch, layer), autocast=True)
    dtype: torch.dtype = getattr(torch, kind)
    return replace(cast(LastingTorch, layer), module=module_of(layer).to(dtype), dtype=dtype)


# before, dynamo does not know every Python that torch runs on, nor all that layers are made of
COMPILES = Version(torch.__version__) >= Version("2.4")


def compiled(layer: LastingLayer) -> LastingLayer:
    """Return the layer compiled: it shares the state of the module."""
    return replace(cast(LastingTorch, layer), compiled=plain.compiled(module_of(layer)))


def module_of(layer: LastingLayer) -> nn.Module:
    """Return the torch module of a layer that this module has made."""
    return cast(LastingTorch, layer).module


def leading_of(x: Array, use: Use) -> tuple[int, ...]:
    """Return the leading dimensions that tokens get: those asked for, or two, none of them 1 where it can be helped."""
    count = len(x)
    first = next((f for f in range(2, math.isqrt(max(count, 0)) + 1) if count % f == 0), 1)
    return (first, count // first) if use.leading is None else use.leading
