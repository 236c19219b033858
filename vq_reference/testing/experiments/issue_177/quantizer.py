"""Any release's SimVQ behind one call: their constructors differ, what they mean does not."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn


def build(
    SimVQ: Any, codes: int, transform: nn.Module, *, dim: int, estimator: str, beta: float, **options: Any
) -> nn.Module:
    """Return a SimVQ of `codes` codes of width `dim` that maps its frozen codebook through `transform`.

    estimator: "rotation" or "straight-through". beta: weight of the encoder half. options: passed on, for those who
    know them (commitment_weight). What a constructor takes is read from its signature, not guessed from a version.

    Raises TypeError where the constructor does not know one of `options`.
    """
    known = inspect.signature(SimVQ).parameters
    spellings = ("input_to_quantize_commit_loss_weight", "commit_loss_input_to_quantize_weight")
    options[next(name for name in spellings if name in known)] = beta
    if "codebook_transform" in known:
        options["codebook_transform"] = transform
    module: nn.Module = SimVQ(dim, codes, rotation_trick=estimator == "rotation", **options)
    if "codebook_transform" not in known:
        module.codebook_to_codes = transform
    return module


def freeze(module: nn.Module, codebook: Tensor) -> None:
    """Write `codebook` (K, F) into the buffer that holds the frozen codes."""
    buffers = dict(module.named_buffers())
    # The oldest releases call the frozen codes "codebook", which since means T(C) and is no buffer.
    with torch.no_grad():
        buffers["frozen_codebook" if "frozen_codebook" in buffers else "codebook"].copy_(codebook)
