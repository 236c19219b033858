"""What the laws need to know of the quantizer: what `vq-check describe` printed, and the loss that is meant."""

from my_codec import CodecQuantizer

from vq_reference.testing import torch_quantizer


def adapter(dtype="float32", device="cpu"):
    """Return the Implementation."""
    return torch_quantizer(
        lambda wanted: CodecQuantizer(wanted.dim, wanted.codebook_size, wanted.beta),
        codebook="codebook.weight",
        x="B D T",
        output_at="frames",
        indices_at="codes",
        loss_at="loss",
        loss_weights=lambda wanted: (1.0, wanted.beta),
        dtype=dtype,
        device=device,
    )
