"""A toy autoencoder around SimVQ, trained as in the report: what the missing encoder half does over time.

On a fixed input the fault makes the loss smaller, by 1/(1 + β). It inflates because nothing holds the encoder to its
codes: the reconstruction moves x, the codebook half lets the codes run after it, and a large weight makes them run
without ever arriving. ℓ is homogeneous of degree 2 in (x, codes), so it is read beside the relative error
mse·D/‖x‖², which has no scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from vq_reference.testing.experiments.issue_177.quantizer import build
from vq_reference.testing.experiments.issue_177.static import BETA

DATA, HIDDEN, DIM, CODES = 32, 64, 16, 64
#: Tokens in a step, as (sequences, length).
BATCH = (8, 32)
STEPS, LEARNING_RATE, COMMITMENT_WEIGHT = 400, 1e-3, 1000.0


@dataclass(frozen=True)
class Run:
    """One training run: a value of each curve for each step.

    loss: ℓ / commitment_weight. norm: mean ‖x‖ over tokens. relative_error: mse·D / mean ‖x‖², which is
    mean ‖x − q‖² / mean ‖x‖².
    """

    subject: str
    estimator: str
    seed: int
    loss: Sequence[float]
    norm: Sequence[float]
    relative_error: Sequence[float]

    def final(self, curve: str) -> float:
        """Return the mean of a curve over the last tenth of the steps: one batch alone is a noisy end."""
        values: Sequence[float] = getattr(self, curve)
        tail = values[-max(1, len(values) // 10) :]
        return sum(tail) / len(tail)


def train(SimVQ: Any, estimator: str, seed: int) -> dict[str, list[float]]:
    """Train an autoencoder with SimVQ in the middle on Gaussian noise; return the curves of a `Run`.

    Everything random comes from `seed`, in the same order for every release, so that two releases start from the same
    weights and see the same batches.
    """
    torch.manual_seed(seed)
    encoder, decoder, transform = _mlp(DATA, DIM), _mlp(DIM, DATA), _mlp(DIM, DIM)
    quantizer = build(
        SimVQ, CODES, transform, dim=DIM, estimator=estimator, beta=BETA, commitment_weight=COMMITMENT_WEIGHT
    )
    modules = nn.ModuleList([encoder, decoder, quantizer])
    optimizer = torch.optim.Adam(modules.parameters(), LEARNING_RATE)
    curves: dict[str, list[float]] = {"loss": [], "norm": [], "relative_error": []}
    for _ in range(STEPS):
        data = torch.randn(*BATCH, DATA)
        x = encoder(data)
        with torch.no_grad():
            codebook = cast(torch.Tensor, quantizer.codebook)
        output, indices, loss = quantizer(x)
        optimizer.zero_grad()
        (nn.functional.mse_loss(decoder(output), data) + loss).backward()
        optimizer.step()
        x, loss = x.detach(), loss.detach()
        curves["loss"].append(loss.item() / COMMITMENT_WEIGHT)
        curves["norm"].append(x.norm(dim=-1).mean().item())
        curves["relative_error"].append(((x - codebook[indices]).square().sum() / x.square().sum()).item())
    return curves


def _mlp(width_in: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width_in, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, width_out))
