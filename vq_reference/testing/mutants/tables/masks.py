"""What goes wrong with masks."""

from vq_reference.testing.mutants.mutant import Mutant

LAYER = "vq_reference.nn.vector_quantize"
MASKS = "vq_reference.nn.masks"
PROJECTIONS = "vq_reference.nn.projections"
ENTER = """present = torch.where(valid[..., None], x, 0)
        hidden = _apply_to(present, self.project_in)
        return torch.where(valid[..., None], hidden, 0)"""

MUTANTS = (
    Mutant(
        "mask-inverted",
        MASKS,
        replace="    return mask\n",
        by="    return ~mask\n",
        why="True is read as padding",
        killed_by="mask.all_true",
    ),
    Mutant(
        "mask-by-first-axis",
        MASKS,
        replace="    return mask\n",
        by="    return mask & mask.new_ones(mask.shape).tril()\n",
        why="a causal mask is laid over the given one",
        killed_by="mask.all_true",
    ),
    Mutant(
        "padding-in-the-loss",
        PROJECTIONS,
        replace=ENTER,
        by="return _apply_to(x, self.project_in)",
        why="what padding holds is in the loss, and gets a gradient",
        killed_by="mask.content",
    ),
    Mutant(
        "padding-projected",
        PROJECTIONS,
        replace="present = torch.where(valid[..., None], x, 0)",
        by="present = x",
        why="padding goes through the projection before it is blanked: NaN comes back in the gradient",
        killed_by="mask.nan",
    ),
    Mutant(
        "mean-over-padding-too",
        LAYER,
        replace="entries = (valid.sum() * self.heads",
        by="entries = (torch.ones_like(valid).sum() * self.heads",
        why="the loss is divided by the number of all tokens, padding included",
        killed_by="mask.tokens",
    ),
    Mutant(
        "padding-is-counted",
        "vq_reference.nn.ema",
        replace="chosen.to(self.counts.dtype)",
        by="torch.ones_like(row, dtype=self.counts.dtype)",
        why="padding counts as tokens of the first code",
        killed_by="mask.tokens",
    ),
    Mutant(
        "bias-in-the-padding",
        PROJECTIONS,
        replace="return torch.where(valid[..., None], output, 0)",
        by="return output",
        why="padding comes out as the bias of the projection",
        killed_by="mask.padding",
    ),
    Mutant(
        "padding-gets-an-index",
        LAYER,
        replace="torch.where(valid[..., None], self.codebooks.choose(tokens.detach(), codes), -1)",
        by="self.codebooks.choose(tokens.detach(), codes)",
        why="padding gets the index of a code",
        killed_by="mask.padding",
    ),
    Mutant(
        "nothing-divided-by-nothing",
        LAYER,
        replace="self.codebook_dim).clamp(min=1)",
        by="self.codebook_dim)",
        why="the mean over no token is NaN",
        killed_by="mask.nothing",
    ),
    Mutant(
        "one-token-too-many",
        MASKS,
        replace="return positions < lengths[:, None]",
        by="return positions <= lengths[:, None]",
        why="the first padding token counts",
        killed_by="mask.lengths",
    ),
)
