"""Shape 2: a nested tuple; images of (B, C, H, W), indices in one flat list; the codes lie as (D, K)."""

import torch
from torch import nn

from vq_reference.testing import torch_quantizer


class ImageQuantizer(nn.Module):
    """As many VQ-VAEs return it: output, loss, (perplexity, indices)."""

    def __init__(self, num_embeddings, embedding_dim, commitment_cost):
        super().__init__()
        self.embed = nn.Parameter(torch.randn(embedding_dim, num_embeddings))
        self.commitment_cost = commitment_cost

    def forward(self, z):
        """Return output, loss, (perplexity, indices)."""
        x = z.permute(0, 2, 3, 1)
        codes = self.embed.T
        flat = x.reshape(-1, x.shape[-1])
        indices = torch.cdist(flat, codes, compute_mode="donot_use_mm_for_euclid_dist").argmin(dim=-1)
        q = codes[indices].reshape(x.shape)
        loss = (x.detach() - q).square().mean() + self.commitment_cost * (x - q.detach()).square().mean()
        used = torch.bincount(indices, minlength=len(codes)).to(x.dtype) / max(len(indices), 1)
        perplexity = torch.exp(-torch.xlogy(used, used).sum())
        output = q.detach() + (x - x.detach())
        return output.permute(0, 3, 1, 2), loss, (perplexity, indices)


def adapter():
    """Return what the laws need to know of it."""
    return torch_quantizer(
        lambda wanted: ImageQuantizer(wanted.codebook_size, wanted.dim, commitment_cost=wanted.beta), "embed.T",
        x="B D H W", indices="(B H W)", indices_at=(2, 1), loss_at=1,
        loss_weights=lambda wanted: (1.0, wanted.beta),
    )  # fmt: skip
