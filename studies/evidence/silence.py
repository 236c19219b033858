"""What silence and zero padding do to the rotation: x near 0, λ = ‖q‖/‖x‖ large."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from studies.evidence.data_sets import CODES, DIM, perceptron, sentences
from studies.evidence.training import LEARNING_RATE
from vq_reference.testing.experiments.issue_177.quantizer import build
from vq_reference.testing.experiments.issue_177.static import BETA

STEPS, BATCH = 300, 4
#: With "bias" the encoder says something about silence. Without, it maps 0 to 0. "masked" has biases, and its output
#: is multiplied by 0 where no sentence is, as text-to-speech code does.
ENCODERS = ("bias", "no bias", "masked")


def tokens(SimVQ: Any, encoder: str, seed: int) -> dict[str, Any]:
    """Train on padded sentences with the rotation; then look at every token, by kind.

    Kinds: "speech"; "silence", a frame of a sentence in which every band is at its floor; "padding" behind its end.
    count: tokens. norm_x, norm_q: quantiles 0, ½ and 1 of ‖x‖ and ‖q‖.
    square: mean square (x − q)². forward: largest ‖output − q‖/‖q‖. gain: largest ‖vjp‖/‖g‖ for a random g, which
    is λ where J = λR. decoded: mean square between what the decoder makes of the output and of the codes themselves.
    """
    frames, lengths = sentences()
    there = torch.arange(frames.shape[1]) < lengths[:, None]
    torch.manual_seed(seed)
    encode, decode = perceptron(bias=encoder != "no bias")
    transform = nn.Sequential(nn.Linear(DIM, 2 * DIM), nn.ReLU(), nn.Linear(2 * DIM, DIM))
    quantizer = build(SimVQ, CODES, transform, dim=DIM, estimator="rotation", beta=BETA)
    optimizer = torch.optim.AdamW(nn.ModuleList([encode, decode, quantizer]).parameters(), LEARNING_RATE)

    def tokens_of(chosen: Tensor) -> Tensor:
        x = cast(Tensor, encode(frames[chosen]))
        return x * there[chosen][..., None] if encoder == "masked" else x

    for _ in range(STEPS):
        chosen = torch.randint(len(frames), (BATCH,))
        output, _, loss = quantizer(tokens_of(chosen))
        optimizer.zero_grad()
        (mse_loss(decode(output), frames[chosen]) + loss).backward()
        optimizer.step()

    x = tokens_of(torch.arange(len(frames))).detach().requires_grad_()
    output, indices, _ = quantizer(x)
    g = torch.randn_like(output)
    (vjp,) = torch.autograd.grad(output, x, g)
    with torch.no_grad():
        q = cast(Tensor, quantizer.codebook)[indices]
        decoded = (decode(output) - decode(q)).square().mean(dim=-1)
    silent = (frames == 0).all(dim=-1)
    kinds = {"speech": there & ~silent, "silence": there & silent, "padding": ~there}
    return {kind: _look(*(t[at].detach() for t in (x, q, output, vjp, g, decoded))) for kind, at in kinds.items()}


def _look(x: Tensor, q: Tensor, output: Tensor, vjp: Tensor, g: Tensor, decoded: Tensor) -> dict[str, Any]:
    norm_x, norm_q = x.norm(dim=-1), q.norm(dim=-1)
    points = torch.tensor([0.0, 0.5, 1.0])
    return {
        "count": len(x),
        "norm_x": norm_x.quantile(points).tolist(),
        "norm_q": norm_q.quantile(points).tolist(),
        "square": (x - q).square().mean().item(),
        "forward": ((output - q).norm(dim=-1) / norm_q).max().item(),
        "gain": (vjp.norm(dim=-1) / g.norm(dim=-1)).max().item(),
        "decoded": decoded.mean().item(),
    }
