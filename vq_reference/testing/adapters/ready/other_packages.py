"""Quantizers of other packages: diffusers' VectorQuantizer, encodec's by moving average and its stack, snac's."""

from __future__ import annotations

import importlib
from typing import Any

from torch import Tensor, nn

from vq_reference.simvq import SimVQ
from vq_reference.testing.adapters.declare.declared_module import Asked
from vq_reference.testing.adapters.declare.moving_average import MovingAverage
from vq_reference.testing.adapters.declare.torch_quantizer import torch_quantizer
from vq_reference.testing.interface.implementation import Implementation

IMAGES = "B D H W"


def diffusers_vq(legacy: bool = True, dtype: str = "float32", device: str = "cpu") -> Implementation:
    """Return diffusers' VectorQuantizer, of VQModel. `legacy`, its default, has β on the codebook half."""
    package = importlib.import_module("diffusers.models.autoencoders.vae")

    def make(wanted: Asked) -> nn.Module:
        module: nn.Module = package.VectorQuantizer(wanted.codebook_size, wanted.dim, wanted.beta, legacy=legacy)
        return module

    def weights(wanted: SimVQ) -> tuple[float, float]:
        return (wanted.beta, 1.0) if legacy else (1.0, wanted.beta)

    return torch_quantizer(
        make,
        "embedding.weight",
        name="diffusers.VectorQuantizer" if legacy else "diffusers.VectorQuantizer[not_legacy]",
        x=IMAGES,
        indices="(B H W)",
        indices_at=(2, 2),
        loss_at=1,
        loss_weights=weights,
        decode=_diffusers_decode,
        packages=["diffusers"],
        dtype=dtype,
        device=device,
    )


def _diffusers_decode(module: Any, indices: Tensor) -> Tensor:
    """Decode a flat list of N indices as one row, told as (B, H, W, D)."""
    codes: Tensor = module.get_codebook_entry(indices, (1, 1, len(indices), module.vq_embed_dim))
    return codes


def encodec_vq(dtype: str = "float32", device: str = "cpu") -> Implementation:
    """Return encodec's VectorQuantization. Its eval mode returns the raw code, without estimator and with loss 0."""
    package = importlib.import_module("encodec.quantization.core_vq")

    def make(wanted: Asked) -> nn.Module:
        module: nn.Module = package.VectorQuantization(
            wanted.dim, wanted.codebook_size, kmeans_init=False, commitment_weight=wanted.commitment_weight
        )
        return module

    return torch_quantizer(
        make,
        "_codebook.embed",
        name="encodec.VectorQuantization",
        x="B D T",
        loss_weights=lambda wanted: (0.0, wanted.commitment_weight),
        eval_estimator="none",
        eval_loss="zero",
        decode="decode",
        freeze=lambda module: module._codebook.eval(),
        average=MovingAverage(
            "_codebook.cluster_size",
            "_codebook.embed_avg",
            "_codebook.decay",
            epsilon="_codebook.epsilon",
            replace_below="_codebook.threshold_ema_dead_code",
            initialised="_codebook.inited",
        ),
        packages=["encodec"],
        dtype=dtype,
        device=device,
    )


def encodec_residual_vq(dtype: str = "float32", device: str = "cpu") -> Implementation:
    """Return encodec's ResidualVectorQuantization, which returns indices and losses with the layers first."""
    package = importlib.import_module("encodec.quantization.core_vq")

    def make(wanted: Asked) -> nn.Module:
        module: nn.Module = package.ResidualVectorQuantization(
            num_quantizers=wanted.layers,
            dim=wanted.dim,
            codebook_size=wanted.codebook_size,
            kmeans_init=False,
            commitment_weight=wanted.commitment_weight,
        )
        return module

    return torch_quantizer(
        make,
        "layers.*._codebook.embed",
        name="encodec.ResidualVectorQuantization",
        x="B D T",
        indices="1 B T",
        loss_weights=lambda wanted: (0.0, wanted.commitment_weight),
        eval_estimator="none",
        eval_loss="zero",
        decode="decode",
        freeze=_still_codebooks,
        stack=True,
        packages=["encodec"],
        dtype=dtype,
        device=device,
    )


def _still_codebooks(module: Any) -> None:
    for layer in module.layers:
        layer._codebook.eval()


def snac_vq(dtype: str = "float32", device: str = "cpu") -> Implementation:
    """Return snac's VectorQuantize: nearest by cosine, between two projections. It returns no loss."""
    package = importlib.import_module("snac.vq")

    def make(wanted: Asked) -> nn.Module:
        module: nn.Module = package.VectorQuantize(wanted.dim, wanted.codebook_size, wanted.codebook_dim)
        return module

    return torch_quantizer(
        make,
        "codebook.weight",
        project_in="in_proj",
        project_out="out_proj",
        name="snac.VectorQuantize",
        x="B D T",
        loss_at=None,
        metric="cosine",
        decode=lambda module, indices: module.out_proj(module.decode_code(indices)),
        packages=["snac"],
        dtype=dtype,
        device=device,
    )
