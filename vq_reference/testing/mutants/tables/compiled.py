"""What goes wrong in compiled code alone."""

from vq_reference.testing.mutants.mutant import Mutant

MUTANTS = (
    Mutant(
        "compiled-loss-of-one-token-more",
        "vq_reference.nn.vector_quantize",
        replace="self.codebook_dim).clamp(min=1)",
        by="self.codebook_dim).clamp(min=1) + int(torch.compiler.is_compiling())",
        why="another branch is taken while compiling, and its mean is over another count",
        killed_by="compiled.reply",
    ),
    Mutant(
        "compiled-codes-stay",
        "vq_reference.nn.ema",
        replace="used = counts > 0\n",
        by="used = counts > (9 if torch.compiler.is_compiling() else 0)\n",
        why="compiled code does not move the codes",
        killed_by="compiled.state",
    ),
    Mutant(
        "compiled-mask-ignored",
        "vq_reference.nn.masks",
        replace="    return mask\n",
        by="    return torch.ones_like(mask) if torch.compiler.is_compiling() else mask\n",
        why="compiled code takes padding for tokens",
        killed_by="compiled.mask",
    ),
)
