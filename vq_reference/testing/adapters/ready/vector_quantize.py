"""Our own VectorQuantize and ResidualQuantizer, as the laws see them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

import vq_reference
from vq_reference.simvq import SimVQ
from vq_reference.testing.adapters.codegen.module_script import module_script
from vq_reference.testing.adapters.torch.auxiliary_terms import reference_terms
from vq_reference.testing.adapters.torch.layer import Layouts, TorchLayer
from vq_reference.testing.adapters.torch.layout import Layout
from vq_reference.testing.adapters.torch.stateful_layer import (
    CARRY,
    Access,
    Given,
    LastingTorch,
    cast_to,
    compiled,
    constructing,
)
from vq_reference.testing.adapters.torch.tensors import set_exactly
from vq_reference.testing.interface.auxiliary import TERMS
from vq_reference.testing.interface.implementation import Implementation
from vq_reference.testing.interface.precision import PRECISIONS
from vq_reference.testing.interface.stateful import Averaging, Lasting, LastingLayer, Wanted, WantedStack

BASE = {
    "estimator:straight_through",
    "estimator:rotation",
    "indices",
    "loss",
    "decode",
    "state",
    "form",
    "leading",
    "eval",
}
TRAINED = BASE | {"codebook_gradient", "step", *TERMS}
LASTS = {
    *(
        "lasting",
        "trained",
        "directional",
        "ema",
        "smoothing",
        "quiet_without_grad",
        "initialise_from_data",
        "replace",
        "heads",
    ),
    *("separate_codebooks", "projections", "projection_bias", "cosine", "channel_first", "mask", "lengths"),
    *("cast:float16", "cast:bfloat16", "cast:autocast", "cast:float64", "checkpoint"),
}
STACKS = {
    *("stack", "stack:frozen", "stack:trained", "stack:ema", "stack:projections", "layer_dropout"),
    "quiet_without_grad",
}
# of a stack of a single layer
KEPT = {
    *("lasting", "trained", "ema", "smoothing", "initialise_from_data", "replace", "mask", "lengths", "checkpoint"),
    *("cast:float16", "cast:bfloat16", "cast:autocast", "cast:float64"),
}
VERSIONS = {"vq-reference": vq_reference.__version__, "torch": torch.__version__}


def shared_by_ranks() -> Implementation:
    """Return `vq_reference.nn.VectorQuantize` as processes share it: for the laws of that alone, which take seconds."""
    return Implementation(
        name="reference.VectorQuantize[ranks]",
        build=_build_once,
        precision=PRECISIONS["float32"],
        capabilities=frozenset({"ranks", "ranks_equal_one", "initialise_from_data", "replace"}),
        versions=VERSIONS,
        lasting=Lasting(build),
    )


def vector_quantize(compiles: bool = False) -> Implementation:
    """Return `vq_reference.nn.VectorQuantize`, for one call with trained codes, and in all its modes where it lasts.

    compiles: offer compilation too, which takes seconds for each layer.
    """
    return Implementation(
        name="reference.VectorQuantize[compiled]" if compiles else "reference.VectorQuantize",
        build=_build_once,
        precision=PRECISIONS["float32"],
        capabilities=frozenset(TRAINED | LASTS | ({"compiled"} if compiles else set())),
        versions=VERSIONS,
        lasting=Lasting(build, CARRY, cast_to, compiled if compiles else None),
        auxiliary=reference_terms(),
        script=module_script(_build_once, lambda wanted: module_of(_wanted(wanted)), None, (0, 1, 2), None, "decode"),
    )


def residual_quantizer() -> Implementation:
    """Return `vq_reference.nn.ResidualQuantizer`: its flow is ∂r_i/∂x = I, its gain that of one quantizer."""
    return Implementation(
        name="reference.ResidualQuantizer",
        build=_build_stack_of_one,
        precision=PRECISIONS["float32"],
        capabilities=frozenset(BASE - {"form"} | STACKS | KEPT),
        versions=VERSIONS,
        loss_weights=lambda reference: (reference.commitment_weight, reference.commitment_weight * reference.beta),
        lasting=Lasting(lambda wanted: LastingTorch(_one_layer(wanted), STACK), CARRY, cast_to, None, build_stack),
        script=module_script(_build_stack_of_one, _stack_of_one, None, (0, 1, 2), None, "decode"),
    )


def module_of(wanted: Wanted, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return the module with codes, statistics and projections placed, or as it is constructed."""
    from vq_reference.nn import VectorQuantize

    layer, averaging = wanted.layer, wanted.averaging or Averaging()
    groups, size, width = layer.codes.shape
    dim = layer.heads * width if layer.project_in is None else layer.project_in.weight.shape[1]
    kind = "ema" if wanted.averaging else "gradient" if layer.trained else "nothing"
    make = partial(
        VectorQuantize,
        dim,
        size,
        heads=layer.heads,
        codebook_dim=width,
        separate_codebooks=groups > 1,
        codes_learn_by=cast(Any, kind),
        decay=averaging.decay,
        epsilon=averaging.epsilon,
        replace_below=averaging.replace_below,
        initialise_from_data=averaging.initialise_from_data,
        metric="cosine" if layer.unit else "euclidean",
        estimator=cast(Any, layer.estimator),
        beta=layer.beta,
        commitment_weight=layer.commitment_weight,
        channel_first=wanted.channel_first,
    )
    with constructing(wanted):
        module = make().to(dtype)
    if not wanted.placed:
        return module
    for codebook, codes in zip(module.codebooks, layer.codes, strict=True):
        cast(Any, codebook).place(torch.as_tensor(codes).to(dtype))
    _place_projections(module, layer)
    return module


def _place_projections(module: Any, wanted: Any) -> None:
    """Set project_in and project_out of a layer or a stack, where they are wanted."""
    for name in ("project_in", "project_out"):
        affine, linear = getattr(wanted, name), getattr(module.projections, name)
        if affine is not None:
            set_exactly(linear.weight, affine.weight)
            set_exactly(linear.bias, affine.bias)


def _call(module: Any, x: Tensor, mask: Tensor | None, lengths: Tensor | None) -> Given:
    first = module.channel_first
    output, indices, loss = module(x.movedim(-1, 1) if first else x, mask, lengths)
    return Given(output.movedim(1, -1) if first else output, indices, loss)


def _decode(module: Any, indices: Tensor) -> Tensor:
    output: Tensor = module.decode(indices)
    return output.movedim(1, -1) if module.channel_first else output


def _statistics(module: Any) -> list[tuple[Tensor, Tensor]]:
    return [(codebook.counts, codebook.sums) for codebook in module.codebooks if hasattr(codebook, "counts")]


ACCESS = Access(_call, lambda module: cast(Tensor, module.codes), _decode, _statistics)
STACK = replace(
    ACCESS,
    codes=lambda module: torch.cat([cast(Any, layer).codes for layer in cast(Any, module).layers]),
    statistics=lambda module: [pair for layer in cast(Any, module).layers for pair in _statistics(layer)],
)


def build(wanted: Wanted) -> LastingLayer:
    """Return the layer that is wanted."""
    return LastingTorch(module_of(wanted), ACCESS)


def build_stack(wanted: WantedStack) -> LastingLayer:
    """Return the stack that is wanted, of frozen or trained layers, or of moving averages."""
    from vq_reference.nn import ResidualQuantizer

    stack = wanted.stack
    settings = {"trained": stack.trained, "beta": stack.beta, "commitment_weight": stack.commitment_weight}
    layers = [module_of(Wanted(_oracle(codes[None], **settings), wanted.averaging)) for codes in stack.codes]
    module = ResidualQuantizer(
        cast(Any, layers),
        dim=None if wanted.project_in is None else wanted.project_in.weight.shape[1],
        estimator=cast(Any, stack.estimator),
        layer_dropout=wanted.layer_dropout,
    )
    _place_projections(module, wanted)
    return LastingTorch(module, STACK)


def _oracle(codes: Any, **settings: Any) -> Any:
    from vq_reference.vector_quantize import VectorQuantize as Oracle

    return Oracle(codes, **settings)


def _build_once(reference: SimVQ) -> TorchLayer:
    """Return a layer whose trained codes are the effective ones of `reference`."""
    module = cast(Any, module_of(_wanted(reference)))
    return TorchLayer(
        module,
        module,
        torch.float32,
        torch.device("cpu"),
        codes=module.codebooks[0].codes,
        decode_indices=module.decode,
        changed=lambda other: set_exactly(module.codebooks[0].codes, other.codebook),
    )


def _build_stack_of_one(reference: SimVQ) -> TorchLayer:
    module = _stack_of_one(reference)
    layouts = Layouts(Layout.of("... D"), Layout.of("... D"), Layout.of("... 1"), (1,))
    return TorchLayer(
        module,
        module,
        torch.float32,
        torch.device("cpu"),
        codes=module.layers[0].codebooks[0].codes,
        layouts=layouts,
        decode_indices=module.decode,
    )


def _stack_of_one(reference: SimVQ) -> Any:
    return _one_layer(_wanted(reference))


def _one_layer(wanted: Wanted) -> Any:
    from vq_reference.nn import ResidualQuantizer

    return ResidualQuantizer(cast(Any, [module_of(wanted)]), estimator=cast(Any, wanted.layer.estimator))


def _wanted(reference: SimVQ) -> Wanted:
    settings = {"beta": reference.beta, "commitment_weight": reference.commitment_weight}
    return Wanted(_oracle(reference.codebook[None], trained=True, estimator=reference.estimator, **settings))
