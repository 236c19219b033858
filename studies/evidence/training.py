"""One training run of an autoencoder around any release's SimVQ, and what can be changed about it, one by one."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from studies.evidence.data_sets import CODES, DATA_SETS, DIM
from vq_reference.testing.experiments.issue_177.quantizer import build
from vq_reference.testing.experiments.issue_177.static import BETA

Data = Literal["digits", "speech"]
Estimator = Literal["rotation", "straight-through"]
Transform = Literal["linear", "mlp"]
Half = Literal["as released", "added", "removed"]
Ratio = Literal["as released", "one"]

LEARNING_RATE, SEEDS, POINTS = 1e-3, (0, 1, 2), 30


@dataclass(frozen=True)
class Setting:
    """What one run does.

    encoder_half: the loss "as released"; or with the half that trains the encoder "added" to a release that left it
    out, or "removed" from one that has it, by code around the release and not in it.
    ratio: λ in the backward pass "as released", or "one": the gradient is turned and not stretched.
    """

    data: Data
    estimator: Estimator
    transform: Transform = "mlp"
    weight: float = 1.0
    encoder_half: Half = "as released"
    ratio: Ratio = "as released"
    seed: int = 0
    steps: int = 300


def train(SimVQ: Any, setting: Setting) -> dict[str, Any]:
    """Train; return curves of `POINTS` points after that of the first step, and what was reached on held-out data.

    loss: ℓ / weight. norm_x, norm_q: mean lengths. relative_error: Σ‖x − q‖² / Σ‖x‖². ratio: median λ. codes: how many
    the batch uses. reconstruction: mean square. digest: SHA-256 of the loss of every step, bit by bit.

    Everything random comes from the seed, in the same order for every release and setting.
    """
    torch.manual_seed(setting.seed)
    data = DATA_SETS[setting.data]()
    encoder, decoder = data.autoencoder()
    middle: nn.Module = nn.Linear(DIM, DIM, bias=False)
    if setting.transform == "mlp":
        middle = nn.Sequential(nn.Linear(DIM, 2 * DIM), nn.ReLU(), nn.Linear(2 * DIM, DIM))
    # The oldest releases with a transform know no weight: it is applied here, which is the same product.
    quantizer = build(SimVQ, CODES, middle, dim=DIM, estimator=setting.estimator, beta=BETA)
    optimizer = torch.optim.AdamW(nn.ModuleList([encoder, decoder, quantizer]).parameters(), LEARNING_RATE)
    generator = torch.Generator().manual_seed(setting.seed)
    every_loss, curves = hashlib.sha256(), Curves()
    with _ratio(SimVQ, setting.ratio):
        for step in range(1, setting.steps + 1):
            batch = data.batch(generator)
            x = encoder(batch)
            codes = cast(Tensor, quantizer.codebook)
            output, indices, loss = quantizer(x)
            q = codes[indices]
            if setting.encoder_half == "added":
                loss = loss + BETA * mse_loss(x, q.detach())
            if setting.encoder_half == "removed":
                loss = mse_loss(x.detach(), q)
            reconstruction = mse_loss(decoder(output), batch)
            optimizer.zero_grad()
            (reconstruction + setting.weight * loss).backward()
            optimizer.step()
            every_loss.update(loss.detach().numpy().tobytes())
            if step == 1 or step % (setting.steps // POINTS) == 0:
                curves.add(step, x.detach(), q.detach(), indices, loss.item(), reconstruction.item())
    held_out = _held_out(data.held_out, encoder, quantizer, decoder)
    return {"curves": curves.points, "held_out": held_out, "digest": every_loss.hexdigest()}


class Curves:
    """The points of the curves: name → values."""

    def __init__(self) -> None:
        self.points: dict[str, list[float]] = {}

    def add(self, step: int, x: Tensor, q: Tensor, indices: Tensor, loss: float, reconstruction: float) -> None:
        """Add a point to each curve."""
        norm_x, norm_q = x.norm(dim=-1), q.norm(dim=-1)
        point = {
            "step": step,
            "loss": loss,
            "norm_x": norm_x.mean().item(),
            "norm_q": norm_q.mean().item(),
            "relative_error": relative_error(x, q),
            "ratio": (norm_q / norm_x).median().item(),
            "codes": len(set(indices.flatten().tolist())),
            "reconstruction": reconstruction,
        }
        for name, value in point.items():
            self.points.setdefault(name, []).append(value)


def relative_error(x: Tensor, q: Tensor) -> float:
    """Return Σ‖x − q‖² / Σ‖x‖²: 0 for perfect codes, 1 for codes that are all zero; it has no unit."""
    return ((x - q).square().sum() / x.square().sum()).item()


def _held_out(data: Tensor, encoder: nn.Module, quantizer: nn.Module, decoder: nn.Module) -> dict[str, float]:
    with torch.no_grad():
        x = encoder(data)
        output, indices, _ = quantizer(x)
        return {
            "reconstruction": mse_loss(decoder(output), data).item(),
            "relative_error": relative_error(x, cast(Tensor, quantizer.codebook)[indices]),
            "codes": len(set(indices.flatten().tolist())),
        }


@contextmanager
def _ratio(SimVQ: Any, ratio: str) -> Iterator[None]:
    """With "one", give the release a rotation whose value is q as ever and whose gradient is R'g in place of λR'g."""
    module = cast(Any, sys.modules[SimVQ.__module__])
    if ratio == "as released":
        yield
        return
    released = module.rotate_to

    def rotate_only(x: Tensor, q: Tensor) -> Tensor:
        turned = released(x, q * (x.norm(dim=-1, keepdim=True) / q.norm(dim=-1, keepdim=True)))
        return cast(Tensor, turned + (q - turned).detach())

    module.rotate_to = rotate_only
    try:
        yield
    finally:
        module.rotate_to = released
