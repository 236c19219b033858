"""The quantizer of a small codec, with two bugs; docs/verify-your-own.md finds them."""

from torch import nn


class CodecQuantizer(nn.Module):
    """Takes frames as (B, C, T), returns a dictionary."""

    def __init__(self, channels, codebook_size, beta=0.25):
        super().__init__()
        self.codebook = nn.Embedding(codebook_size, channels)
        self.beta = beta

    def forward(self, frames):
        """Return the quantized frames, their codes, and the commitment loss."""
        x = frames.transpose(1, 2)
        flat = x.reshape(-1, x.shape[-1])
        embed = self.codebook.weight
        distances = flat.square().sum(dim=1, keepdim=True) - 2 * flat @ embed.T
        codes = distances.argmin(dim=1).reshape(x.shape[:-1])
        q = self.codebook(codes)
        loss = (x.detach() - q).square().mean() + self.beta * (x - q).detach().square().mean()
        output = x + (q - x).detach()
        return {"frames": output.transpose(1, 2), "codes": codes, "loss": loss}
