"""What goes wrong in the choice of a code, and in finding the way back to it."""

from vq_reference.testing.mutants.mutant import Mutant

ORACLE = "vq_reference.nearest"
MODULE = "vq_reference.nn.nearest"
LAYER = "vq_reference.nn.sim_vq"
SEARCHED = "chosen[start : start + rows] = table.nearest(tokens[start : start + rows])"
MAPPED = "return torch.where(chosen < 0, chosen, table.index[chosen])"

MUTANTS = (
    Mutant(
        "farthest-code",
        ORACLE,
        replace="np.argmin(distances(x, codes), axis=1)",
        by="np.argmax(distances(x, codes), axis=1)",
        why="the farthest code is chosen",
        killed_by="nearest.choice",
    ),
    Mutant(
        "distance-without-the-codes-length",
        MODULE,
        replace=SEARCHED,
        by="chosen[start : start + rows] = (tokens[start : start + rows] @ table.codes.T).argmax(dim=1)",
        why="the largest product x·c is the nearest code only among codes of one length",
        killed_by="nearest.fixed_point",
    ),
    Mutant(
        "distance-in-another-norm",
        ORACLE,
        replace="np.sqrt(np.sum(scaled**2, axis=2))",
        by="np.sum(np.abs(scaled), axis=2)",
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
        replace=MAPPED,
        by="return torch.where(chosen < 0, chosen, table.index[chosen[:1]])",
        why="every token gets the code of the first",
        killed_by="tokens.permuted",
    ),
    Mutant(
        "expanded-square",
        MODULE,
        replace=SEARCHED,
        by="""part = tokens[start : start + rows]
            squares = part.square().sum(1, keepdim=True) - 2 * part @ table.codes.T + table.codes.square().sum(1)
            chosen[start : start + rows] = squares.argmin(dim=1)""",
        why="‖x‖² − 2x·c + ‖c‖² cancels: a common offset of 1000 leaves nothing of it in float32",
        killed_by="nearest.offset",
    ),
    Mutant(
        "distance-by-cdist",
        MODULE,
        replace=SEARCHED,
        by="chosen[start : start + rows] = torch.cdist(tokens[start : start + rows], table.codes).argmin(dim=1)",
        why="torch.cdist expands the square above 25 rows, so that splitting a batch changes its indices",
        killed_by="nearest.offset",
    ),
    Mutant(
        "distances-in-half-precision",
        MODULE,
        replace=SEARCHED,
        by="""squares = (tokens[start : start + rows, None] - table.codes).square().sum(2)
            chosen[start : start + rows] = squares.clamp(max=60000).half().argmin(dim=1)""",
        why="distances are kept in float16: of two codes nearly as near, the first one is chosen",
        killed_by="nearest.choice",
    ),
    Mutant(
        "first-64-codes",
        LAYER,
        replace="indices = nearest(tokens, codes)",
        by="indices = nearest(tokens, codes[:64])",
        why="a block of 64 codes is searched, and the others never",
        killed_by="nearest.every_code",
    ),
    Mutant(
        "indices-in-bfloat16",
        LAYER,
        replace="indices.reshape(x.shape[:-1])",
        by="indices.bfloat16().long().reshape(x.shape[:-1])",
        why="indices beyond 256 are rounded to 8 bits",
        killed_by="nearest.every_code",
    ),
    Mutant(
        "second-block-forgets-its-offset",
        LAYER,
        replace="indices.reshape(x.shape[:-1])",
        by="(indices % 1024).reshape(x.shape[:-1])",
        why="an index within its block of 1024 codes: wrong for every code behind the first block",
        killed_by="nearest.every_code",
    ),
    Mutant(
        "indices-in-a-byte",
        LAYER,
        replace="indices.reshape(x.shape[:-1])",
        by="indices.to(torch.uint8).reshape(x.shape[:-1])",
        why="indices beyond 255 are cut to a byte",
        killed_by="nearest.every_code",
    ),
    Mutant(
        "indices-of-a-signed-byte",
        LAYER,
        replace="indices.reshape(x.shape[:-1])",
        by="indices.to(torch.int8).reshape(x.shape[:-1])",
        why="the dtype of the indices ends at 127, below the last of them",
        killed_by="form.indices",
    ),
    Mutant(
        "only-the-last-token-trains-its-code",
        ORACLE,
        replace="np.add.at(gradient, indices, g)",
        by="gradient[indices] = g",
        why="of several tokens that chose a code, the last one alone reaches it",
        killed_by="loss.codebook_half",
    ),
    Mutant(
        "cosine-in-place-of-euclidean",
        ORACLE,
        replace="return np.asarray(np.ldexp(np.sqrt(np.sum(scaled**2, axis=2)), exponents))",
        by="return 1 - x @ codes.T / np.linalg.norm(codes, axis=1)",
        why="directions are compared where distances were declared: they change when everything is moved",
        killed_by="nearest.translated",
    ),
    Mutant(
        "distance-saturates",
        ORACLE,
        replace="return np.asarray(np.ldexp(np.sqrt(np.sum(scaled**2, axis=2)), exponents))",
        by="return np.minimum(np.ldexp(np.sqrt(np.sum(scaled**2, axis=2)), exponents), 1)",
        why="all codes farther than 1 are equally far: the choice depends on the unit of length",
        killed_by="nearest.scale",
    ),
    Mutant(
        "last-code-unused",
        ORACLE,
        replace="np.argmin(distances(x, codes), axis=1)",
        by="np.argmin(distances(x, codes)[:, : max(len(codes) - 1, 1)], axis=1)",
        why="the last code is never looked at",
        killed_by="nearest.permuted",
    ),
    Mutant(
        "half-of-the-codes-unused",
        LAYER,
        replace="indices = nearest(tokens, codes)",
        by="indices = nearest(tokens, codes[::2]) * 2",
        why="every second code is out of reach, even for an input that is that code",
        killed_by="nearest.fixed_point",
    ),
    Mutant(
        "indices-from-one",
        LAYER,
        replace="indices.reshape(x.shape[:-1])",
        by="indices.reshape(x.shape[:-1]) + 1",
        why="codes are counted from 1: the last index names none",
        killed_by="nearest.valid",
    ),
    Mutant(
        "tokens-centred-on-their-batch",
        LAYER,
        replace="indices = nearest(tokens, codes)",
        by="indices = nearest(tokens - tokens.mean(dim=0), codes)",
        why="the batch's mean is taken off before the choice: a token's code depends on its neighbours",
        killed_by="tokens.split",
    ),
)
