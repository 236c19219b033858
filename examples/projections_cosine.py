"""Shape 3: a dictionary; sequences of (B, C, T), codes between two projections, chosen by their direction."""

from torch import nn

from vq_reference.testing import torch_quantizer


class CodecQuantizer(nn.Module):
    """Projects to a narrow space, chooses by cosine, hands on the code as it is, and projects back."""

    def __init__(self, input_dim, codebook_size, codebook_dim, beta):
        super().__init__()
        self.in_proj = nn.Conv1d(input_dim, codebook_dim, 1)
        self.out_proj = nn.Conv1d(codebook_dim, input_dim, 1)
        self.codebook = nn.Embedding(codebook_size, codebook_dim)
        self.beta = beta

    def forward(self, x):
        """Return a dictionary of output, codes and loss."""
        latent = self.in_proj(x).transpose(1, 2)
        directions = nn.functional.normalize(self.codebook.weight, dim=-1)
        codes = (nn.functional.normalize(latent, dim=-1) @ directions.T).argmax(dim=-1)
        q = self.codebook(codes)
        loss = (latent.detach() - q).square().mean() + self.beta * (latent - q.detach()).square().mean()
        output = q.detach() + (latent - latent.detach())
        return {"z_q": self.out_proj(output.transpose(1, 2)), "codes": codes, "vq_loss": loss}


def adapter():
    """Return what the laws need to know of it."""
    return torch_quantizer(
        lambda wanted: CodecQuantizer(wanted.dim, wanted.codebook_size, wanted.codebook_dim, wanted.beta),
        "codebook.weight", project_in="in_proj", project_out="out_proj",
        x="B D T", output_at="z_q", indices_at="codes", loss_at="vq_loss", metric="cosine",
        loss_weights=lambda wanted: (1.0, wanted.beta),
    )  # fmt: skip
