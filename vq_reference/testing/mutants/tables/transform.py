"""What goes wrong between the frozen codes and the effective codebook, forward and back."""

from vq_reference.testing.mutants.mutant import Mutant

ORACLE = "vq_reference.codebook"
LAYER = "vq_reference.nn.sim_vq"

MUTANTS = (
    Mutant(
        "transform-is-not-trained",
        LAYER,
        replace="codes: Tensor = self.code_transform(self.frozen_codebook)",
        by="codes: Tensor = self.code_transform(self.frozen_codebook).detach()",
        why="the codebook is detached from its transform: the one thing that SimVQ trains never learns",
        killed_by="loss.linear_transform",
    ),
    Mutant(
        "codes-not-transformed",
        LAYER,
        replace="q = _look_up(codes, indices)",
        by="q = _look_up(self.frozen_codebook.to(wide), indices)",
        why="the choice is made among T(C) and the code is taken from C",
        killed_by="straight_through.output",
    ),
    Mutant(
        "transform-without-bias",
        ORACLE,
        replace="leaving = leaving + bias",
        by="leaving = leaving + 0 * bias",
        why="the bias is left out of the forward",
        killed_by="loss.transform",
    ),
    Mutant(
        "activation-after-the-last-layer",
        ORACLE,
        replace="leaving if i == len(transform) - 1 else np.maximum(leaving, 0)",
        by="np.maximum(leaving, 0)",
        why="the codes go through a ReLU: none has a negative entry",
        killed_by="straight_through.output",
    ),
    Mutant(
        "activation-ignored-by-the-backward",
        ORACLE,
        replace="g = (g @ layer.weight) * (entering > 0)",
        by="g = g @ layer.weight",
        why="the gradient passes where the ReLU does not",
        killed_by="loss.transform",
    ),
    Mutant(
        "bias-gradient-averaged",
        ORACLE,
        replace="g.sum(axis=0)",
        by="g.mean(axis=0)",
        why="the gradient at a bias is a sum over the codes, not their mean",
        killed_by="loss.transform",
    ),
    Mutant(
        "frozen-codes-are-trained",
        LAYER,
        replace='self.register_buffer("frozen_codebook", frozen)',
        by="self.frozen_codebook = nn.Parameter(frozen)",
        why="the frozen codes are a parameter: an optimizer that is given all of them moves the codes too",
        killed_by="simvq.frozen",
    ),
    Mutant(
        "code-gradient-averaged",
        "vq_reference.nearest",
        replace="return gradient\n",
        by="return gradient / np.maximum(np.bincount(indices, minlength=codebook_size), 1)[:, None]\n",
        why="a code gets the mean of its tokens' gradients: those of a crowded code count less",
        killed_by="simvq.additive",
    ),
    Mutant(
        "transform-learns-only-with-the-encoder",
        LAYER,
        replace="codebook_half = _mean_square(tokens.detach(), q)",
        by="codebook_half = _mean_square(tokens.detach(), q if x.requires_grad else q.detach())",
        why="behind a frozen encoder the transform learns nothing",
        killed_by="gradient.not_asked",
    ),
)
