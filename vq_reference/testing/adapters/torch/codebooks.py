"""Ways to set effective codes exactly where they are not the rows of one tensor: the `codebook` of `torch_quantizer`.

Both put a signed permutation P on the way, which rounds nothing and is not the identity: a transform or a projection
that is left out, or applied twice, then shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vq_reference.testing.adapters.torch.tensors import turning


@dataclass(frozen=True)
class ThroughLinear:
    """Codes that are a linear transform of frozen ones, as SimVQ's: paths of the frozen codes and of the nn.Linear.

    The gradient is seen at what the linear returns.
    """

    frozen: str
    linear: str

    def __call__(self, module: nn.Module, codes: Tensor) -> nn.Module:
        """Set C = E P and T(C) = C P', so that T(C) = E. Raises ValueError for a linear that is not square."""
        linear: Any = module.get_submodule(self.linear)
        turn = turning(codes.shape[1], codes.dtype, codes.device)
        _require(self.linear, linear.weight, turn)
        with torch.no_grad():
            linear.weight.copy_(turn)
            if linear.bias is not None:
                linear.bias.zero_()
            _tensor(module, self.frozen).copy_(codes @ turn)
        watched: nn.Module = linear
        return watched


@dataclass(frozen=True)
class Turned:
    """A tensor that holds E P' for the codes E, (K, D): with G the gradient at it, that at E is G P."""

    tensor: Tensor
    by: Tensor


@dataclass(frozen=True)
class BetweenProjections:
    """Codes between two square projections: nn.Linear or convolutions of kernel 1, weight normalisation or not."""

    entering: str
    codes: str
    leaving: str

    def __call__(self, module: nn.Module, codes: Tensor) -> Turned:
        """Turn tokens by P on their way in and by P' on their way out, and the codes by P."""
        turn = turning(codes.shape[1], codes.dtype, codes.device)
        with torch.no_grad():
            for path, matrix in ((self.entering, turn), (self.leaving, turn.T)):
                projection: Any = module.get_submodule(path)
                _require(path, projection.weight, turn)
                shaped = matrix.reshape(projection.weight.shape)
                if hasattr(projection, "weight_g"):  # weight normalisation as it was before torch 2.0: g · v / ‖v‖
                    projection.weight_g.fill_(1)
                    projection.weight_v.copy_(shaped)
                elif hasattr(projection, "parametrizations"):
                    projection.weight = shaped
                else:
                    projection.weight.copy_(shaped)
                if projection.bias is not None:
                    projection.bias.zero_()
            lying = _tensor(module, self.codes).copy_(codes @ turn.T)
        return Turned(lying, turn)


def _tensor(module: nn.Module, path: str) -> Tensor:
    owner, _, name = path.rpartition(".")
    found: Tensor = getattr(module.get_submodule(owner), name)
    return found


def _require(path: str, weight: Tensor, turn: Tensor) -> None:
    if weight.shape[:2] != turn.shape or weight.numel() != turn.numel():
        raise ValueError(
            f"{path}.weight has shape {tuple(weight.shape)}: expected {tuple(turn.shape)}: in the adapter hand "
            "wanted.codebook_dim to the module's constructor, as the width of its codes"
        )
