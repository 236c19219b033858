"""vector-quantize-pytorch's VectorQuantize, ResidualVQ and ResidualSimVQ, in the modes that most people train.

A mode that this release has no argument for is refused when it is made. The codebook by moving average is frozen
here: these laws state what one forward does. What a sequence of them does to the codes: `lucidrains_lasting`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from vq_reference.simvq import SimVQ
from vq_reference.testing.adapters.declare.declared_module import Asked
from vq_reference.testing.adapters.declare.torch_quantizer import torch_quantizer
from vq_reference.testing.adapters.ready import lucidrains_stateful
from vq_reference.testing.adapters.ready.lucidrains_terms import terms_of
from vq_reference.testing.adapters.torch.codebooks import ThroughLinear
from vq_reference.testing.interface.auxiliary import TERMS, Auxiliary
from vq_reference.testing.interface.implementation import Implementation
from vq_reference.testing.interface.stateful import LASTING

PACKAGE = "vector-quantize-pytorch"
HEADS = 2
SYNC_NU = 0.5
DECODE = "get_codes_from_indices"
# arguments of each; heads and projections are seen through `_two_heads` and `_projected`
MODES: Mapping[str, Mapping[str, Any]] = {
    "": {},
    "learnable": {"learnable_codebook": True, "ema_update": False},
    "synchronous": {"learnable_codebook": True, "ema_update": False, "sync_update_v": SYNC_NU},
    "cosine": {"use_cosine_sim": True},
    "channel_first": {"channel_last": False},
    "image": {"accept_image_fmap": True},
    "heads": {"heads": HEADS},
    "separate_heads": {"heads": HEADS, "separate_codebook_per_head": True},
    "projections": {},
}
LAYOUTS = {"channel_first": "B D T", "image": "B D H W"}


def vector_quantize(mode: str = "", dtype: str = "float32", device: str = "cpu") -> Implementation:
    """Return VectorQuantize in one of MODES. Raises ImportError, or TypeError for an argument it does not know."""
    package = importlib.import_module("vector_quantize_pytorch")
    known = inspect.signature(package.VectorQuantize).parameters

    def make(wanted: Asked) -> nn.Module:
        width = {"heads": HEADS, "separate_heads": HEADS, "projections": 2}.get(mode, 1) * wanted.dim
        arguments = {
            **({} if width == wanted.dim else {"codebook_dim": wanted.dim}),
            **({"rotation_trick": wanted.estimator == "rotation"} if "rotation_trick" in known else {}),
        }
        module: nn.Module = package.VectorQuantize(
            dim=width,
            codebook_size=wanted.codebook_size,
            commitment_weight=wanted.commitment_weight,
            **arguments,
            **MODES[mode],
        )
        return module

    def codebook(module: Any, codes: Tensor) -> Tensor:
        embed: Tensor = module._codebook.embed
        with torch.no_grad():
            embed.copy_(nn.functional.normalize(codes, dim=-1) if mode == "cosine" else codes)
        if mode == "projections":
            _set_projections(module, codes.shape[1])
        return embed

    terms = terms_of(package) if mode == "learnable" else Auxiliary()
    calls = {"heads": _two_heads, "separate_heads": _two_heads, "projections": _projected}
    learned = mode in ("learnable", "synchronous")
    made = torch_quantizer(
        make,
        codebook,
        name=f"lucidrains.VectorQuantize[{mode}]" if mode else "lucidrains.VectorQuantize",
        x=LAYOUTS.get(mode, "B T D"),
        loss_weights=lambda wanted: (wanted.commitment_weight if learned else 0.0, wanted.commitment_weight),
        # of a learnable codebook: one mean square without a stop, which trains both ends
        loss_value=lambda wanted: wanted.commitment_weight,
        estimator=["straight_through", "rotation"] if "rotation_trick" in known else "straight_through",
        sync_nu=MODES[mode].get("sync_update_v", 0.0),
        metric="cosine" if mode == "cosine" else "euclidean",
        unit_codes=mode == "cosine",
        unit_tokens=mode == "cosine",
        eval_estimator="none",
        eval_loss="zero",
        decode=DECODE if mode not in calls and hasattr(package.VectorQuantize, DECODE) else None,
        call=calls.get(mode),
        freeze=None if learned else _without_average,
        **(_padding(package, package.VectorQuantize) if learned else {}),
        packages=[PACKAGE],
        dtype=dtype,
        device=device,
    )
    offered = {name for name in TERMS if getattr(terms, name) is not None}
    lasts = lucidrains_stateful.offered(package, mode)
    made = replace(made, auxiliary=terms, capabilities=made.capabilities | offered)
    if not lasts:
        return made
    return replace(
        made, capabilities=made.capabilities - set(LASTING) | lasts, lasting=lucidrains_stateful.averages(package)
    )


def shared_by_ranks() -> Implementation:
    """Return VectorQuantize as processes share it, which it does by itself in a process group. Raises ImportError."""
    made = vector_quantize()
    capabilities = frozenset({"ranks", "ranks_equal_one", "initialise_from_data", "replace"})
    return replace(made, name="lucidrains.VectorQuantize[ranks]", capabilities=capabilities)


def residual_vq(layers: int = 1, dtype: str = "float32", device: str = "cpu") -> Implementation:
    """Return ResidualVQ as one quantizer: all layers but the first hold zero codes, so that they add nothing.

    Of more than one no loss is declared: those of the others are of what the first left over, rounding and all.
    Raises ImportError.
    """
    package = importlib.import_module("vector_quantize_pytorch")
    rotates = "rotation_trick" in inspect.signature(package.VectorQuantize).parameters

    def make(wanted: Asked) -> nn.Module:
        module: nn.Module = package.ResidualVQ(
            dim=wanted.dim,
            num_quantizers=layers,
            codebook_size=wanted.codebook_size,
            commitment_weight=wanted.commitment_weight,
            **({"rotation_trick": wanted.estimator == "rotation"} if rotates else {}),
        )
        return module

    def codebook(module: Any, codes: Tensor) -> Tensor:
        for each in module.layers:
            each._codebook.embed.zero_()
        first: Tensor = module.layers[0]._codebook.embed
        return first.copy_(codes)

    def freeze(module: Any) -> None:
        for each in module.layers:
            _without_average(each)

    def decode(module: Any, indices: Tensor) -> Tensor:
        first = nn.functional.pad(indices[..., None], (0, layers - 1))  # the others' codes are all zero
        output: Tensor = module.get_output_from_indices(first)
        return output

    made = torch_quantizer(
        make,
        codebook,
        name=f"lucidrains.ResidualVQ[{layers}]",
        x="B T D",
        indices_at=lambda returned: returned[1][..., 0],
        loss_at=2 if layers == 1 else None,
        loss_weights=lambda wanted: (0.0, wanted.commitment_weight),
        estimator=["straight_through", "rotation"] if rotates else "straight_through",
        eval_estimator="none",
        eval_loss="zero",
        decode=decode if hasattr(package.ResidualVQ, "get_output_from_indices") else None,
        freeze=freeze,
        **_padding(package, package.ResidualVQ),
        packages=[PACKAGE],
        dtype=dtype,
        device=device,
    )
    return replace(
        made,
        # in a stack of moving averages codes move without gradients too
        capabilities=made.capabilities - {"quiet_without_grad"}
        | {"stack", "layer_dropout", "stack:frozen", "stack:ema"},
        lasting=lucidrains_stateful.with_stack(made.lasting, package, "ResidualVQ"),
    )


def residual_sim_vq(dtype: str = "float32", device: str = "cpu") -> Implementation:
    """Return ResidualSimVQ with one quantizer. Raises ImportError."""
    package = importlib.import_module("vector_quantize_pytorch")
    known = inspect.signature(package.SimVQ).parameters

    def make(wanted: Asked) -> nn.Module:
        module: nn.Module = package.ResidualSimVQ(
            dim=wanted.dim,
            num_quantizers=1,
            codebook_size=wanted.codebook_size,
            rotation_trick=wanted.estimator == "rotation",
            input_to_quantize_commit_loss_weight=wanted.beta,
            **({"commitment_weight": wanted.commitment_weight} if "commitment_weight" in known else {}),
        )
        return module

    def weights(wanted: SimVQ) -> tuple[float, float]:
        weight = wanted.commitment_weight if "commitment_weight" in known else 1.0
        return weight, weight * wanted.beta

    made = torch_quantizer(
        make,
        ThroughLinear("layers.0.frozen_codebook", "layers.0.code_transform"),
        name="lucidrains.ResidualSimVQ[1]",
        x="B T D",
        indices="B T 1",
        loss_weights=weights,
        estimator=["straight_through", "rotation"],
        decode="get_output_from_indices",
        packages=[PACKAGE],
        dtype=dtype,
        device=device,
    )
    if "commitment_weight" not in known:  # laws of stacks ask for one
        return made
    return replace(
        made,
        capabilities=made.capabilities | {"stack", "layer_dropout", "stack:trained"},
        lasting=lucidrains_stateful.with_stack(made.lasting, package, "ResidualSimVQ"),
    )


def _without_average(module: Any) -> None:
    """Keep the codes as they are: the average moves in training only, in every release."""
    module._codebook.eval()


def _padding(package: Any, module_class: Any) -> dict[str, Any]:
    """Return what `torch_quantizer` is told of masks: in older releases padding comes out as it went in.

    That is up to VectorQuantize, of which the others are made.
    """
    taken = inspect.signature(module_class.forward).parameters
    told: dict[str, Any] = {name: each for name, each in (("mask", "mask"), ("lengths", "lens")) if each in taken}
    if "return_zeros_for_masked_padding" in inspect.signature(package.VectorQuantize).parameters:
        return told
    return {**told, "padded_output": "input", "padded_index": None}


def _two_heads(module: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Give the tokens to the first head, and the same tokens moved on by one to the second; return the mean of both.

    So what each head does with its own token counts, and a head that were given another's would show.
    """
    dim = x.shape[-1]
    moved = x.roll(1, dims=1)
    output, indices, loss = module(torch.cat([x, moved], dim=-1))
    return (output[..., :dim] + output[..., dim:].roll(-1, dims=1)) / 2, indices[..., 0], loss


def _projected(module: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Put the tokens where the projection reads, and take the output from where it writes; the rest is noise."""
    output, indices, loss = module(torch.cat([x, torch.ones_like(x)], dim=-1))
    return output[..., : x.shape[-1]], indices, loss


def _set_projections(module: Any, dim: int) -> None:
    """Let the first `dim` entries through, unchanged in the codebook's own coordinates: the codes are the law's."""
    entering: Any = module.project_in[0] if isinstance(module.project_in, nn.Sequential) else module.project_in
    linears: list[nn.Linear] = [entering, module.project_out]
    with torch.no_grad():
        for linear in linears:
            linear.weight.copy_(torch.eye(*linear.weight.shape))
            linear.bias.zero_()
