"""vector-quantize-pytorch's layers as they last: VectorQuantize with codes that are moving averages, and its stacks.

The average moves here as it does in training; in a stack where that is wanted: laws of one forward want it still.
What a script calls stands in functions of the module alone, under names that the replay has not itself.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from vq_reference.testing.adapters.torch.codebooks import ThroughLinear
from vq_reference.testing.adapters.torch.stateful_layer import (
    CARRY,
    COMPILES,
    Access,
    Given,
    LastingTorch,
    cast_to,
    compiled,
    constructing,
)
from vq_reference.testing.adapters.torch.tensors import set_exactly
from vq_reference.testing.interface.stateful import Averaging, Lasting, LastingLayer, Wanted, WantedStack
from vq_reference.vector_quantize import VectorQuantize

AVERAGES = {
    *("lasting", "ema", "smoothing", "mask", "lengths", "initialise_from_data", "replace", "checkpoint"),
    *("cast:float16", "cast:bfloat16", "cast:autocast", "cast:float64", "compiled"),
}
# what each mode of `lucidrains.vector_quantize` offers in layers that last; the others have none: of a learnable
# codebook the loss is one mean square without a stop, whose value and gradients no two weights give
OFFERS: Mapping[str, set[str]] = {
    "": set(),
    "cosine": {"cosine"},
    "channel_first": {"channel_first"},
    "heads": {"heads"},
    "separate_heads": {"heads", "separate_codebooks"},
    "projections": {"projections", "projection_bias"},
}


def offered(package: Any, mode: str) -> set[str]:
    """Return the capabilities that layers of this mode have in this release, none for one without moving averages."""
    if mode not in OFFERS:
        return set()
    taken = inspect.signature(package.VectorQuantize.forward).parameters
    absent = {"lengths"} - ({"lengths"} if "lens" in taken else set()) | {"mask"} - set(taken)
    decodes = {"layer_decode"} if hasattr(package.VectorQuantize, "get_output_from_indices") else set()
    absent |= set() if COMPILES else {"compiled"}
    return AVERAGES - absent | OFFERS[mode] | decodes


def averages(package: Any) -> Lasting:
    """Return VectorQuantize, built with what is wanted of it. Its eval mode has no loss."""

    def build(wanted: Wanted) -> LastingLayer:
        return LastingTorch(_average(package, wanted), AVERAGE)

    made = Lasting(build, CARRY, cast_to, compiled, loss_in_eval=False)
    if "return_zeros_for_masked_padding" in inspect.signature(package.VectorQuantize).parameters:
        return made
    return replace(made, padded_output="input", padded_index=None)


def with_stack(layers: Lasting | None, package: Any, name: str) -> Lasting:
    """Return ResidualVQ or ResidualSimVQ, by its name, beside a single layer: of either the flow is ∂r_i/∂x = I."""
    assert layers is not None

    def build_stack(wanted: WantedStack) -> LastingLayer:
        build = {"ResidualVQ": _stack_of_averages, "ResidualSimVQ": _stack_of_transforms}[name]
        return LastingTorch(build(package, wanted), STACK if wanted.averaging is None else MOVING_STACK)

    return replace(layers, build_stack=build_stack)


def _average(package: Any, wanted: Wanted) -> nn.Module:
    """Return the module with codes, counts, sums and projections placed, or as it is constructed."""
    layer, averaging = wanted.layer, wanted.averaging or Averaging()
    groups, size, width = layer.codes.shape
    make = functools.partial(
        package.VectorQuantize,
        dim=layer.heads * width if layer.project_in is None else layer.project_in.weight.shape[1],
        codebook_size=size,
        codebook_dim=width,
        decay=averaging.decay,
        eps=averaging.epsilon,
        threshold_ema_dead_code=averaging.replace_below,
        kmeans_init=averaging.initialise_from_data,
        commitment_weight=layer.commitment_weight * layer.beta,
        channel_last=not wanted.channel_first,
        **({"heads": layer.heads} if layer.heads > 1 else {}),
        **({"separate_codebook_per_head": True} if groups > 1 else {}),
        **({"use_cosine_sim": True} if layer.unit else {}),
        **_straight_through(package),
    )
    with constructing(wanted):
        module: Any = make()
    if not wanted.placed:
        return cast(nn.Module, module)
    _place(module._codebook, layer, averaging)
    for name in ("project_in", "project_out"):
        affine = getattr(layer, name)
        if affine is not None:
            set_exactly(getattr(module, name).weight, affine.weight)
            set_exactly(getattr(module, name).bias, affine.bias)
    made: nn.Module = module
    return made


def _place(codebook: Any, layer: VectorQuantize, averaging: Averaging) -> None:
    """Set codes, and counts and sums that agree with them: those that a code has when it has just been replaced."""
    count = averaging.replace_below or 1.0
    codes = torch.as_tensor(layer.codes).to(codebook.embed)
    codes = nn.functional.normalize(codes, dim=-1) if layer.unit else codes
    with torch.no_grad():
        codebook.embed.copy_(codes)
        codebook.embed_avg.copy_(count * codes)
        codebook.cluster_size.fill_(count)


def _straight_through(package: Any) -> dict[str, Any]:
    return {"rotation_trick": False} if "rotation_trick" in inspect.signature(package.VectorQuantize).parameters else {}


def _stack_of_averages(package: Any, wanted: WantedStack) -> nn.Module:
    made, averaging = wanted.stack, wanted.averaging or Averaging()
    size, dim = made.codes[0].shape
    module: Any = package.ResidualVQ(
        dim=dim,
        num_quantizers=len(made.codes),
        codebook_size=size,
        decay=averaging.decay,
        eps=averaging.epsilon,
        commitment_weight=made.commitment_weight * made.beta,
        quantize_dropout=wanted.layer_dropout,
        **_straight_through(package),
    )
    for layer, codes in zip(module.layers, made.codes, strict=True):
        _place(layer._codebook, VectorQuantize(codes[None]), averaging)
    return cast(nn.Module, module)


def _stack_of_transforms(package: Any, wanted: WantedStack) -> nn.Module:
    made = wanted.stack
    size, dim = made.codes[0].shape
    module: Any = package.ResidualSimVQ(
        dim=dim,
        num_quantizers=len(made.codes),
        codebook_size=size,
        rotation_trick=False,
        input_to_quantize_commit_loss_weight=made.beta,
        quantize_dropout=wanted.layer_dropout,
        commitment_weight=made.commitment_weight,
    )
    for i, codes in enumerate(made.codes):
        through = ThroughLinear(f"layers.{i}.frozen_codebook", f"layers.{i}.code_transform")
        through(module, torch.as_tensor(np.array(codes)).float())
    return cast(nn.Module, module)


def call_layer(module: Any, x: Tensor, mask: Tensor | None, lengths: Tensor | None) -> Given:
    """Call a layer of moving averages."""
    given: Any = {} if mask is None else {"mask": mask}
    given = given if lengths is None else {"lens": lengths}
    output, indices, loss = module(x if module.channel_last else x.movedim(-1, 1), **given)
    return Given(output if module.channel_last else output.movedim(1, -1), indices, loss.reshape(()))


def codes_of(module: Any) -> Tensor:
    """Return the codes, (G, K, D)."""
    codes: Tensor = module._codebook.embed
    return codes


def decode_indices(module: Any, indices: Tensor) -> Tensor:
    """Return the outputs of indices, channels last."""
    # before 1.10 there was but the other name, of a method without projections
    decode = getattr(module, "get_output_from_indices", None) or module.get_codes_from_indices
    output: Tensor = decode(indices)
    return output if module.channel_last else output.movedim(1, -1)


def statistics_of(module: Any) -> list[tuple[Tensor, Tensor]]:
    """Return counts and sums of each codebook."""
    return list(zip(module._codebook.cluster_size, module._codebook.embed_avg, strict=True))


def call_stack(module: Any, x: Tensor, mask: Tensor | None, lengths: Tensor | None) -> Given:
    """Call a stack whose codes stay: an average moves in training only."""
    for layer in module.layers:
        if hasattr(layer, "_codebook"):
            layer._codebook.eval()
    output, indices, losses = module(x)
    return Given(output, indices, losses.reshape(-1))


def call_moving_stack(module: Any, x: Tensor, mask: Tensor | None, lengths: Tensor | None) -> Given:
    """Call a stack whose codes move in training."""
    output, indices, losses = module(x)
    return Given(output, indices, losses.reshape(-1))


def decode_stack(module: Any, indices: Tensor) -> Tensor:
    """Return the sums of codes of indices."""
    output: Tensor = module.get_output_from_indices(indices)
    return output


def codes_of_stack(module: Any) -> Tensor:
    """Return the codes of each layer, (L, K, D)."""
    codes: Tensor = module.codebooks
    return codes


def statistics_of_stack(module: Any) -> list[tuple[Tensor, Tensor]]:
    """Return counts and sums of each layer."""
    return [(layer._codebook.cluster_size[0], layer._codebook.embed_avg[0]) for layer in module.layers]


AVERAGE = Access(call_layer, codes_of, decode_indices, statistics_of)
STACK = Access(call_stack, codes_of_stack, decode_stack)
MOVING_STACK = Access(call_moving_stack, codes_of_stack, decode_stack, statistics_of_stack)
