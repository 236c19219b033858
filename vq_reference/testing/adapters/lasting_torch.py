"""The border of lasting layers for torch modules: one call, its backward, and ways to carry a module's state on."""

from __future__ import annotations

import contextlib
import copy
import io
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from vq_reference.arguments import Array
from vq_reference.ema import Statistics
from vq_reference.testing.adapters.lasting import Carry, LastingLayer, Reached, Reply, Start, Use
from vq_reference.testing.adapters.tensors import array_of


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
    """A module as a `LastingLayer`. dtype: of its tokens. autocast: whether it runs under autocast, in bfloat16."""

    module: nn.Module
    access: Access
    dtype: torch.dtype = torch.float32
    autocast: bool = False

    def __call__(
        self,
        x: Array,
        start: Start | None = None,
        use: Use = Use(),
        mask: Array | None = None,
        lengths: Array | None = None,
    ) -> Reply:
        """Forward, and backward from `start`."""
        leading = _two(len(x)) if use.leading is None else use.leading
        self.module.train(use.training)
        entering = (
            torch.as_tensor(np.array(x, order="C")).to(self.dtype).reshape(*leading, -1).requires_grad_(use.with_grad)
        )
        present = None if mask is None else torch.as_tensor(mask).reshape(leading)
        until = None if lengths is None else torch.as_tensor(lengths)
        autocast = torch.autocast("cpu", torch.bfloat16) if self.autocast else contextlib.nullcontext()
        with torch.random.fork_rng(devices=()), torch.set_grad_enabled(use.with_grad), autocast:
            torch.manual_seed(self._seed())
            given = self.access.call(self.module, entering, present, until)
        return Reply(
            output=array_of(given.output).reshape(x.shape),
            indices=given.indices.detach().reshape(len(x), -1).numpy().copy(),
            losses=array_of(given.losses).reshape(-1),
            reached=None if start is None else self._backward(entering, given, start),
            dtypes=cast("tuple[str, str, str]", tuple(str(t.dtype).removeprefix("torch.") for t in given)),
            shapes=cast("tuple[tuple[int, ...], ...]", tuple(tuple(t.shape) for t in given)),  # type: ignore[arg-type]
        )

    def decode(self, indices: Array) -> Array:
        """Return the outputs, (N, dim)."""
        if self.access.decode is None:
            raise TypeError("this layer has no decode: declare one, or leave out the capability")
        chosen = torch.as_tensor(indices)
        lying = chosen.squeeze(-1) if chosen.shape[-1] == 1 and not self._is_stack else chosen
        return array_of(self.access.decode(self.module, lying[None])).reshape(len(indices), -1)

    @property
    def _is_stack(self) -> bool:
        return hasattr(self.module, "layers")

    def codes(self) -> Array:
        """Return the effective codes, (G, K, D)."""
        return array_of(self.access.codes(self.module))

    def statistics(self) -> tuple[Statistics, ...]:
        """Return N and m of each codebook."""
        return tuple(Statistics(array_of(n), array_of(m)) for n, m in self.access.statistics(self.module))

    def state(self) -> Mapping[str, Array]:
        """Return every parameter and buffer, whether a state_dict holds it or not."""
        named = [*self.module.named_parameters(), *self.module.named_buffers()]
        return {name: array_of(tensor) for name, tensor in named}

    def _seed(self) -> int:
        """Return a seed that the state decides: layers of one state draw alike, and a step later they draw anew."""
        return zlib.crc32(b"".join(array.tobytes() for array in self.state().values()))

    def _backward(self, x: Tensor, given: Given, start: Start) -> Reached:
        parameters = {name: p for name, p in self.module.named_parameters() if p.requires_grad}
        output, losses = given.output, given.losses.reshape(-1)
        at_output = torch.as_tensor(start.output).reshape(output.shape).to(output.dtype)
        at_losses = torch.as_tensor(np.asarray(start.losses)).to(losses.dtype)
        ends = [(t, g) for t, g in ((output, at_output), (losses, at_losses)) if t.requires_grad]
        if not ends:
            return Reached(None, dict.fromkeys(parameters))
        values, starts = zip(*ends, strict=True)
        grads = torch.autograd.grad(values, [x, *parameters.values()], starts, allow_unused=True)
        arrays = [None if g is None else array_of(g) for g in grads]
        at_x = None if arrays[0] is None else arrays[0].reshape(-1, x.shape[-1])
        return Reached(at_x, dict(zip(parameters, arrays[1:], strict=True)))


def load_state(layer: LastingLayer, other: LastingLayer) -> LastingLayer:
    """Load the state of `layer` into `other`."""
    module_of(other).load_state_dict(module_of(layer).state_dict())
    return other


def deepcopied(layer: LastingLayer, other: LastingLayer) -> LastingLayer:
    """Copy the module."""
    return replace(cast(LastingTorch, layer), module=copy.deepcopy(module_of(layer)))


def pickled(layer: LastingLayer, other: LastingLayer) -> LastingLayer:
    """Send the module through `torch.save` as a whole."""
    file = io.BytesIO()
    torch.save(module_of(layer), file)
    file.seek(0)
    # the file was written a line above: nothing in it is foreign
    whole: dict[str, Any] = {"weights_only": False} if "weights_only" in torch.load.__code__.co_varnames else {}
    return replace(cast(LastingTorch, layer), module=torch.load(file, **whole))


CARRY: Mapping[str, Carry] = {"state_dict": load_state, "deepcopy": deepcopied, "pickle": pickled}


def cast_to(layer: LastingLayer, kind: str) -> LastingLayer:
    """Return the layer for tokens of another dtype: a module converted to it, or left as it is under autocast."""
    if kind == "autocast":
        return replace(cast(LastingTorch, layer), autocast=True)
    dtype: torch.dtype = getattr(torch, kind)
    return replace(cast(LastingTorch, layer), module=module_of(layer).to(dtype), dtype=dtype)


def compiled(layer: LastingLayer) -> LastingLayer:
    """Return the layer compiled as one graph, by a backend that needs no compiler: it shares the module's state."""
    made = cast(LastingTorch, layer)
    run: Any = torch.compile(made.module, backend="aot_eager", fullgraph=True)

    def call(module: nn.Module, x: Tensor, mask: Tensor | None, lengths: Tensor | None) -> Given:
        return made.access.call(run, x, mask, lengths)

    return replace(made, access=replace(made.access, call=call))


def module_of(layer: LastingLayer) -> nn.Module:
    """Return the torch module of a layer that this module has made."""
    return cast(LastingTorch, layer).module


def _two(count: int) -> tuple[int, int]:
    """Return two dimensions of that product, none of them 1 where it can be helped."""
    first = next((f for f in range(2, math.isqrt(max(count, 0)) + 1) if count % f == 0), 1)
    return first, count // first
