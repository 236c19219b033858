"""A user's residual stack, as a layer that lasts: from where the codes of its layers lie."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import nn

from vq_reference.residual import ResidualStack
from vq_reference.testing.adapters.declaration import DeclarationContradicted
from vq_reference.testing.adapters.lasting import Lasting, LastingLayer, WantedStack
from vq_reference.testing.adapters.lasting_torch import Access, LastingTorch
from vq_reference.testing.adapters.reading import Reading, codes_of_layers, reached
from vq_reference.testing.adapters.tensors import array_of, set_exactly

Make = Callable[[ResidualStack], nn.Module]
Flow = Literal["identity", "none"]


def with_stack(
    lasting: Lasting,
    make: Make,
    codes: str,
    reading: Reading,
    flow: Flow,
    dtype: torch.dtype,
) -> Lasting:
    """Return how stacks are made, beside single layers.

    make: the wanted stack → module, whose codes are still to be set. codes: path of all codes, (L, K, D), or of each
    layer's, with * for its number. Raises DeclarationContradicted where the module has other layers than are wanted.
    """
    access = Access(reading.call, partial(codes_of_layers, path=codes), reading.decode)

    def build_stack(wanted: WantedStack) -> LastingLayer:
        values = np.array(wanted.stack.codes)
        with torch.random.fork_rng(devices=()):
            # what is no code is drawn alike for one stack, whose copies laws compare, and otherwise for another
            torch.default_generator.manual_seed(zlib.crc32(values.tobytes()))
            module = make(wanted.stack)
        _place(module, codes, values)
        return LastingTorch(module, access, dtype)

    _require_its_layers(build_stack)
    return replace(lasting, build_stack=build_stack, flow=flow)


def _place(module: nn.Module, path: str, values: np.ndarray) -> None:
    found = codes_of_layers(module, path)
    if tuple(found.shape) != values.shape:
        what = f"{tuple(found.shape)}, for {len(values)} layers of codes {values.shape[1:]}"
        raise DeclarationContradicted("codebook", repr(path), what, "(L, K, D) for wanted.layers layers")
    if "*" not in path:
        set_exactly(reached(module, path), values)
        return
    for i, each in enumerate(values):
        held = reached(module, path.replace("*", str(i)))
        set_exactly(held, np.broadcast_to(each, held.shape))
    if not np.array_equal(array_of(codes_of_layers(module, path)), values):
        raise DeclarationContradicted("codebook", repr(path), "layers that share one codebook", "each needs its own")


def _require_its_layers(build_stack: Callable[[WantedStack], LastingLayer]) -> None:
    """Call a stack once, so that an axis that is not that of the layers is found before any law is."""
    codes = tuple(np.arange(15.0).reshape(3, 5) / 2**i for i in range(2))
    reply = build_stack(WantedStack(ResidualStack(codes)))(np.ones((7, 5)))
    found = (reply.indices.shape, len(reply.losses))
    if found != ((7, 2), 2):
        what = f"indices {found[0]}, {found[1]} losses for 7 tokens, 2 layers"
        raise DeclarationContradicted("stack", "True", what, "one index a token and layer, and one loss a layer")
