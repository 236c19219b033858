"""What goes wrong in the choice of a code, and in finding the way back to it."""

from vq_reference.testing.mutants.mutant import Mutant

ORACLE = "vq_reference.nearest"
MODULE = "vq_reference.nn.nearest"
LAYER = "vq_reference.nn.sim_vq"
SEARCHED = "chosen[start : start + rows] = table.nearest(tokens[start : start + rows])"

MUTANTS = (
    Mutant(
        "farthest-code",
        ORACLE,
        replace="np.argmin(squared_distances(x, codes), axis=1)",
        by="np.argmax(squared_distances(x, codes), axis=1)",
        why="the farthest code is chosen",
        killed_by="nearest.choice",
    ),
    Mutant(
        "distance-without-the-codes-length",
        MODULE,
        replace=SEARCHED,
        by="chosen[start : start + rows] = (tokens[start : start + rows] @ codes.T).argmax(dim=1)",
        why="the largest product x·c is the nearest code only among codes of one length",
        killed_by="nearest.choice",
    ),
    Mutant(
        "distance-in-another-norm",
        ORACLE,
        replace="np.sum(difference**2, axis=2)",
        by="np.sum(np.abs(difference), axis=2)",
        why="the sum of absolute differences has another nearest code",
        killed_by="nearest.choice",
    ),
    Mutant(
        "nearest-frozen-code",
        LAYER,
        replace="indices = nearest(tokens, codes)",
        by="indices = nearest(tokens, self.frozen_codebook.to(wide)[:, :1].expand_as(codes))",
        why="the choice is made among the frozen codes C and not among T(C)",
        killed_by="nearest.choice",
    ),
    Mutant(
        "one-choice-for-all-tokens",
        MODULE,
        replace="return torch.where(finite, chosen, -1)",
        by="return torch.where(finite, chosen[:1], -1)",
        why="every token gets the code of the first",
        killed_by="nearest.choice",
    ),
    Mutant(
        "expanded-square",
        MODULE,
        replace=SEARCHED,
        by="""part = tokens[start : start + rows]
            squares = part.square().sum(1, keepdim=True) - 2 * part @ codes.T + codes.square().sum(1)
            chosen[start : start + rows] = squares.argmin(dim=1)""",
        why="‖x‖² − 2x·c + ‖c‖² cancels: a common offset of 1000 leaves nothing of it in float32",
        killed_by="nearest.offset",
    ),
    Mutant(
        "distance-by-cdist",
        MODULE,
        replace=SEARCHED,
        by="chosen[start : start + rows] = torch.cdist(tokens[start : start + rows], codes).argmin(dim=1)",
        why="torch.cdist expands the square above 25 rows, so that splitting a batch changes its indices",
        killed_by="nearest.offset",
    ),
    Mutant(
        "only-the-last-token-trains-its-code",
        ORACLE,
        replace="np.add.at(gradient, indices, g)",
        by="gradient[indices] = g",
        why="of several tokens that chose a code, the last one alone reaches it",
        killed_by="loss.codebook_half",
    ),
)
