"""A user's residual stack, as a layer that lasts: from where the codes of its layers lie."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from vq_reference.residual import ResidualStack
from vq_reference.testing.adapters.declare.declared_module import Asked, reference_of
from vq_reference.testing.adapters.torch.codes_at_path import converted
from vq_reference.testing.adapters.torch.reading import Reading, codes_of_layers, reached
from vq_reference.testing.adapters.torch.stateful_layer import Access, LastingTorch
from vq_reference.testing.adapters.torch.tensors import array_of, set_exactly
from vq_reference.testing.interface.errors import DeclarationContradicted
from vq_reference.testing.interface.implementation import Implementation
from vq_reference.testing.interface.stateful import LastingLayer, WantedStack

Make = Callable[[ResidualStack], nn.Module]
Flow = Literal["identity", "none"]


def _require_of_stack(described: Implementation, codebook: Any, loss_at: Any) -> None:
    """Raise ValueError that names what is declared otherwise than the laws of stacks know it."""
    estimators = sorted(each for each in described.capabilities if each.startswith("estimator:"))
    if "estimator:straight_through" not in estimators:
        raise ValueError(f"stack is given, and estimator is {estimators}: expected straight_through among them")
    if "eval" not in described.capabilities or described.loss_value is not None:
        raise ValueError("stack is given: expected a loss of two halves, and that eval is as training")
    metric = described.metric
    reasons = {
        "codebook is no path": not isinstance(codebook, str),
        "loss_at is None": loss_at is None,
        f"metric is {metric!r}": metric != "euclidean",
    }
    if wanting := [reason for reason, is_so in reasons.items() if is_so]:
        raise ValueError(
            f"stack is given, and {', and '.join(wanting)}: expected a path for the codebook, a loss, and "
            "Euclidean distances"
        )


def with_stacks(
    described: Implementation,
    make: Any,
    codebook: Any,
    reading: Reading,
    loss_at: Any,
    trained: bool,
    flow: Flow,
    gain: Callable[[int], float],
    dtype: torch.dtype,
) -> Implementation:
    """Return the implementation with stacks beside its layers: with β = 1 where no gradient trains codes.

    make: what is asked for → module. Raises ValueError for what the laws of stacks do not know.
    """
    if isinstance(make, nn.Module) or described.sizes is not None or described.lasting is None:
        raise ValueError("stack is given for an instance: expected a function that makes one of any size")
    _require_of_stack(described, codebook, loss_at)
    probe = reference_of(None)
    for beta, weight in ((0.25, 0.5), (0.5, 2.0)) if trained else ((1.0, 0.5), (1.0, 2.0)):
        found = tuple(described.loss_weights(replace(probe, beta=beta, commitment_weight=weight)))
        expected = (weight if trained else 0.0, weight * beta)
        if found != expected:
            raise ValueError(
                f"stack is given, and loss_weights is {found} where β = {beta} and w = {weight} are wanted: expected "
                f"{expected}; hand both to the module, and return them in loss_weights"
            )

    def made(wanted: ResidualStack) -> nn.Module:
        size, dim = wanted.codes[0].shape
        beta, weight = wanted.beta, wanted.commitment_weight
        halves = (beta, weight) if trained else (1.0, weight * beta)
        asked = Asked(dim, size, "straight_through", *halves, layers=len(wanted.codes), codebook_dim=dim)
        return converted(make(asked), codebook.replace("*", "0"), dtype)

    build_stack = _builder(made, codebook, reading, dtype)
    _require_its_layers(build_stack)
    lasting = replace(described.lasting, build_stack=build_stack, flow=flow, stack_gain=gain)
    offered = {"stack", "stack:trained" if trained else "stack:frozen"}
    return replace(described, capabilities=described.capabilities | offered, lasting=lasting)


def _builder(make: Make, codes: str, reading: Reading, dtype: torch.dtype) -> Callable[[WantedStack], LastingLayer]:
    """Return what builds a stack. codes: path of all codes, (L, K, D), or of each layer's, with * for its number.

    Raises DeclarationContradicted where the module has other layers than are wanted.
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

    return build_stack


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
