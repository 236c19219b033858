"""Shape 5: a residual stack. As one quantizer it is seen with zero codes in all layers but the first."""

import torch
from torch import nn

from vq_reference.testing.adapters.quantizer import torch_quantizer


class ResidualQuantizer(nn.Module):
    """Each layer quantizes what those before it left over; one straight-through estimator spans them all."""

    def __init__(self, dim, codebook_size, layers, beta):
        super().__init__()
        self.codebooks = nn.Parameter(torch.randn(layers, codebook_size, dim))
        self.beta = beta

    def forward(self, x):
        """Return output, indices and loss."""
        total, left, chosen, losses = torch.zeros_like(x), x, [], []
        for codebook in self.codebooks:
            flat = left.reshape(-1, x.shape[-1])
            indices = torch.cdist(flat, codebook, compute_mode="donot_use_mm_for_euclid_dist").argmin(dim=-1)
            q = codebook[indices].reshape(x.shape)
            losses.append((left.detach() - q).square().mean() + self.beta * (left - q.detach()).square().mean())
            total, left = total + q.detach(), left - q.detach()
            chosen.append(indices.reshape(x.shape[:-1]))
        return total + (x - x.detach()), torch.stack(chosen, dim=-1), torch.stack(losses)


def first_alone(module, codes):
    """Set the first layer's codes, and zero all others."""
    module.codebooks.data[0], module.codebooks.data[1:] = codes, 0
    return module.codebooks


def adapter():
    """Return what the laws need to know of it."""
    return torch_quantizer(
        lambda wanted: ResidualQuantizer(wanted.dim, wanted.codebook_size, 2, wanted.beta), first_alone,
        indices_at=lambda returned: returned[1][..., 0], loss_at=lambda returned: returned[2][0],
        loss_weights=lambda wanted: (1.0, wanted.beta),
    )  # fmt: skip
