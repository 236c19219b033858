"""One implementation, in a process of its own: all that is measured of it.

All runs of one implementation share a process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from vq_reference.testing.experiments.issue_177.dynamic import train
from vq_reference.testing.experiments.issue_177.measured import Measured, implementation
from vq_reference.testing.experiments.issue_177.quantizer import build, freeze
from vq_reference.testing.experiments.issue_177.static import BETA, case


def measure(SimVQ: Any, estimator: str) -> dict[str, Any]:
    """Return loss, ∂ℓ/∂x and ∂ℓ/∂W of a float32 SimVQ on the fixed case; None for a gradient that backward left out."""
    given = case()
    x, C, W = (torch.tensor(a, dtype=torch.float32) for a in (given.x, given.C, given.W))
    transform = torch.nn.Linear(W.shape[1], W.shape[0], bias=False)
    with torch.no_grad():
        transform.weight.copy_(W)
    module = build(SimVQ, len(C), transform, dim=x.shape[-1], estimator=estimator, beta=BETA)
    freeze(module, C)
    x.requires_grad_()
    loss = module(x)[-1]
    if loss.requires_grad:
        loss.backward()
    grad_x, grad_transform = (None if leaf.grad is None else leaf.grad.tolist() for leaf in (x, transform.weight))
    return {"loss": loss.item(), "grad_x": grad_x, "grad_transform": grad_transform}


def answer(subject: Measured, estimators: Sequence[str], seeds: Sequence[int]) -> dict[str, list[dict[str, Any]]]:
    """Return what `measure` finds for each estimator (static) and `train` for each of them and each seed (runs)."""
    with implementation(subject) as SimVQ:
        return {
            "static": [{"estimator": e, **measure(SimVQ, e)} for e in estimators],
            "runs": [{"estimator": e, "seed": s, **train(SimVQ, e, s)} for e in estimators for s in seeds],
        }
