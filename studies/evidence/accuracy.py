"""How far the rotation of a float32 implementation is from the oracle, over the angle and over the norm."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

import vq_reference.rotation as oracle

TOKENS, DIM = 64, 16
#: Radians between −x̂ and q̂: π is "same direction", 0 is "opposite".
ANGLES = [*np.logspace(-7, 0, 15).tolist(), np.pi / 2, 2.0, 3.0]
NORMS = [0.0, *np.logspace(-30, 30, 31).tolist()]


def errors(SimVQ: Any) -> dict[str, list[dict[str, float]]]:
    """Return the largest errors of `TOKENS` random tokens for each angle (norms 1) and each norm of x (1 rad, ‖q‖ 1).

    forward: ‖output − q‖ / ‖q‖. rotation: largest entry of |J'J/λ² − I|, which is 0 for a rotation, whichever it is.
    backward: ‖vjp − λR'g‖ / ‖λR'g‖ for a random g. λ and R are those of the NumPy oracle in float64, on the very
    numbers that the implementation was given. For x = 0 the oracle's λR is I.
    """
    rotate = _rotate(SimVQ)
    right_angle = float(np.pi - 1)
    return {
        "angles": [{"angle": angle, **_errors(rotate, *_tokens(angle, 1.0))} for angle in ANGLES],
        "norms": [{"norm": norm, **_errors(rotate, *_tokens(right_angle, norm))} for norm in NORMS],
    }


def _rotate(SimVQ: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the function (x, q) → output behind the module's rotation."""
    module: Any = sys.modules[SimVQ.__module__]
    function: Callable[[Tensor, Tensor], Tensor] = getattr(module, "rotate_to", None) or module.rotate
    return function


def _tokens(angle: float, norm: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return x, q and g in float32, each (TOKENS, DIM): q̂ is `angle` away from −x̂."""
    draw = np.random.default_rng(0)
    x_hat, across = draw.standard_normal((2, TOKENS, DIM))
    x_hat /= np.linalg.norm(x_hat, axis=1, keepdims=True)
    across -= x_hat * np.sum(across * x_hat, axis=1, keepdims=True)
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    q = -np.cos(angle) * x_hat + np.sin(angle) * across
    return tuple(torch.tensor(a, dtype=torch.float32) for a in (norm * x_hat, q, draw.standard_normal(q.shape)))  # type: ignore[return-value]


def _errors(rotate: Callable[[Tensor, Tensor], Tensor], x: Tensor, q: Tensor, g: Tensor) -> dict[str, float]:
    leaf = x.clone().requires_grad_()
    output = rotate(leaf, q)
    axes = torch.eye(DIM).expand(TOKENS, DIM, DIM)
    rows = [torch.autograd.grad(output, leaf, axes[:, row], retain_graph=True)[0] for row in range(DIM)]
    (found,) = torch.autograd.grad(output, leaf, g)
    # in float64: at the ends of float32's range a norm of float32 is itself 0 or infinite
    x64, q64, g64 = (t.double().numpy() for t in (x, q, g))
    right = oracle.vjp(x64, q64, g64)
    J = torch.stack(rows, dim=1).double().numpy() / oracle.ratio(x64, q64)[..., None]
    forward = np.linalg.norm(output.detach().double().numpy() - q64, axis=1) / np.linalg.norm(q64, axis=1)
    backward = np.linalg.norm(found.double().numpy() - right, axis=1) / np.linalg.norm(right, axis=1)
    return {
        "forward": float(forward.max()),
        "rotation": float(np.abs(J.transpose(0, 2, 1) @ J - np.eye(DIM)).max()),
        "backward": float(backward.max()),
    }
