"""Shape 5: a residual stack. With one layer it is a quantizer as any other, and has to be right as that, too."""

import torch
from torch import nn

from vq_reference.testing import torch_quantizer


class ResidualQuantizer(nn.Module):
    """Each layer quantizes what those before it left over; one straight-through estimator spans them all."""

    def __init__(self, dim, codebook_size, layers, beta=0.25, commitment_weight=1.0):
        super().__init__()
        self.codebooks = nn.Parameter(torch.randn(layers, codebook_size, dim))
        self.beta, self.commitment_weight = beta, commitment_weight

    def forward(self, x):
        """Return output, indices (..., layers) and the loss of each layer."""
        total, left, chosen, losses = torch.zeros_like(x), x, [], []
        for codebook in self.codebooks:
            flat = left.reshape(-1, x.shape[-1])
            indices = torch.cdist(flat, codebook, compute_mode="donot_use_mm_for_euclid_dist").argmin(dim=-1)
            q = codebook[indices].reshape(x.shape)
            loss = (left.detach() - q).square().mean() + self.beta * (left - q.detach()).square().mean()
            losses.append(self.commitment_weight * loss)
            total, left = total + q.detach(), left - q.detach()
            chosen.append(indices.reshape(x.shape[:-1]))
        return total + (x - x.detach()), torch.stack(chosen, dim=-1), torch.stack(losses)

    def decode(self, indices):
        """Return the sum of the layers' codes."""
        return sum(codebook[chosen] for codebook, chosen in zip(self.codebooks, indices.unbind(dim=-1), strict=True))


def adapter():
    """Return what the laws need to know of it."""
    return torch_quantizer(
        lambda asked: ResidualQuantizer(
            asked.dim, asked.codebook_size, asked.layers, asked.beta, asked.commitment_weight
        ),
        "codebooks", indices="... 1", loss_shape=(1,), decode="decode", stack=True,
    )  # fmt: skip
