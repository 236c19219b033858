"""Right quantizers, plain and with moving averages, for tests of what can be declared; and which laws break on one."""

import torch
from torch import nn
from torch.nn import functional

from vq_reference.testing.adapters.declare.moving_average import MovingAverage
from vq_reference.testing.adapters.declare.torch_quantizer import torch_quantizer
from vq_reference.testing.laws.registry import laws
from vq_reference.testing.laws.verdict import Verdict
from vq_reference.testing.run.judge import judge

LAWS = laws()
FAULTS = (Verdict.BROKEN, Verdict.CRASHED)


def nearest(x, codes):
    return torch.cdist(x, codes, compute_mode="donot_use_mm_for_euclid_dist").argmin(dim=-1)


def broken(made, *families):
    """Return the must-laws of these families, or of all, that break on it."""
    its = [law for law in LAWS.values() if law.level == "must" and law.id.startswith(families or "")]
    its = [law for law in its if not made.lacks(law.needs)]
    assert its
    return {law.id for law in its if judge(law, made, "quick", None)[0].verdict in FAULTS}


class Plain(nn.Module):
    """Nearest code, straight-through gradient, a loss in both halves; for others to change."""

    def __init__(self, asked, dim=None):
        super().__init__()
        self.asked = asked
        self.codes = nn.Parameter(torch.randn(asked.codebook_size, dim or asked.dim))

    def forward(self, x):
        """Return output, indices and loss."""
        indices = nearest(x, self.codes)
        q = self.codes[indices]
        return q.detach() + (x - x.detach()), indices, self.loss(x, q)

    def loss(self, x, q):
        halves = (x.detach() - q).square() + self.asked.beta * (x - q.detach()).square()
        return self.asked.commitment_weight * halves.mean()


class Follows(Plain):
    """Codes that are moving averages, between projections if there are any; half a batch may be padding."""

    def __init__(self, asked, decay=0.9):
        super().__init__(asked, asked.codebook_dim)
        codes = self.codes.detach()
        del self.codes
        self.register_buffer("codes", codes)
        self.register_buffer("counts", torch.ones(len(codes)))
        self.register_buffer("sums", codes.clone())
        self.decay, self.steps, self.moves = decay, 0, True
        self.before = self.behind = nn.Identity()

    def forward(self, x, mask=None):
        """Return output, indices and the encoder half of the loss."""
        there = torch.ones(x.shape[:-1], dtype=torch.bool) if mask is None else mask
        hidden = torch.where(there[..., None], self.before(x), 0.0)
        indices = torch.where(there, nearest(hidden, self.codes), -1)
        q = torch.where(there[..., None], self.codes[indices], 0.0)
        loss = (hidden - q).square().sum() / (there.sum().clamp(min=1) * q.shape[-1])
        if self.training and self.moves and torch.is_grad_enabled() and there.any():
            self.follow(hidden[there].detach(), indices[there])
        output = torch.where(there[..., None], self.behind(q.detach() + (hidden - hidden.detach())), 0.0)
        return output, indices, self.asked.commitment_weight * loss

    @torch.no_grad()
    def follow(self, tokens, indices):
        chosen = functional.one_hot(indices, len(self.codes)).to(tokens)
        self.counts = torch.lerp(self.counts, chosen.sum(dim=0), 1 - self.decay)
        self.sums = torch.lerp(self.sums, chosen.T @ tokens, 1 - self.decay)
        self.codes = self.sums / self.counts[:, None]


AVERAGE = MovingAverage("counts", "sums", "decay")


def still(module):
    module.moves = False


def follows(module, **declared):
    return torch_quantizer(
        module,
        "codes",
        loss_weights=lambda wanted: (0.0, wanted.commitment_weight),
        **{"average": AVERAGE, "mask": "mask", "freeze": still, **declared},
    )
