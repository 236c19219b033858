"""What goes wrong in auxiliary terms."""

from vq_reference.testing.mutants.mutant import Mutant

DIVERSITY = "vq_reference.nn.diversity"
ORTHOGONALITY = "vq_reference.nn.orthogonality"
USAGE = "vq_reference.nn.usage"

MUTANTS = (
    Mutant(
        "diversity-sign",
        DIVERSITY,
        replace="(-temperature * distances)",
        by="(temperature * distances)",
        why="the farthest code has the largest share",
        killed_by="aux.diversity_value",
    ),
    Mutant(
        "diversity-rewards-collapse",
        DIVERSITY,
        replace="(log_mean.exp() * log_mean).sum()",
        by="-(log_mean.exp() * log_mean).sum()",
        why="the entropy itself is added to the loss, which then makes it small",
        killed_by="aux.diversity_value",
    ),
    Mutant(
        "diversity-of-each-token",
        DIVERSITY,
        replace="(log_mean.exp() * log_mean).sum()",
        by="(log_shares.exp() * log_shares).sum(dim=1).mean()",
        why="the mean of the entropies stands for the entropy of the mean: every token is to choose all codes",
        killed_by="aux.diversity_value",
    ),
    Mutant(
        "diversity-shown-with-each-tokens-entropy",
        DIVERSITY,
        replace="(log_mean.exp() * log_mean).sum()",
        by="(log_mean.exp() * log_mean).sum() - (log_shares.exp() * log_shares).sum(dim=1).mean().detach()",
        why="what is shown is less the entropy of each token's own choice, which nothing trains",
        killed_by="aux.diversity_value",
    ),
    Mutant(
        "diversity-underflows",
        DIVERSITY,
        replace="log_mean = log_shares.logsumexp(dim=0) - math.log(len(log_shares))",
        by="log_mean = log_shares.exp().mean(dim=0).log()",
        why="a code without any share is 0·log 0, which is NaN",
        killed_by="aux.diversity_extremes",
    ),
    Mutant(
        "diversity-with-detached-codes",
        DIVERSITY,
        replace="codes.to(wide), dim=-1)",
        by="codes.detach().to(wide), dim=-1)",
        why="the term trains the encoder alone",
        killed_by="aux.diversity_gradient",
    ),
    Mutant(
        "diversity-of-each-position",
        DIVERSITY,
        replace=".reshape(-1, len(codes))",
        by="",
        why="the mean is over the batch alone, and each position of a sequence has an entropy of its own",
        killed_by="aux.diversity_arrangement",
    ),
    Mutant(
        "orthogonality-of-lengths",
        ORTHOGONALITY,
        replace="directions = torch.nn.functional.normalize(wide, dim=-1, eps=torch.finfo(wide.dtype).tiny)",
        by="directions = wide",
        why="products stand for cosines: shrinking the codes is the way out",
        killed_by="aux.orthogonality_value",
    ),
    Mutant(
        "equal-codes-count-once",
        ORTHOGONALITY,
        replace="wide = codes.to(",
        by="seen = codes.tolist()\n    wide = codes[[i for i, code in enumerate(seen) if code not in seen[:i]]].to(",
        why="codes that have become the same one are not seen as a fault of the codebook",
        killed_by="aux.orthogonality_value",
    ),
    Mutant(
        "codes-are-their-own-neighbours",
        ORTHOGONALITY,
        replace="(cosines - cosines.diag().diag())",
        by="cosines",
        why="the cosine of a code with itself is counted: 1/K at right angles, with the same gradient",
        killed_by="aux.orthogonality_value",
    ),
    Mutant(
        "one-code-of-a-pair-is-detached",
        ORTHOGONALITY,
        replace="cosines = directions @ directions.T",
        by="cosines = directions @ directions.detach().T",
        why="each pair pushes one of its codes: half the gradient, at the same value",
        killed_by="aux.orthogonality_gradient",
    ),
    Mutant(
        "perplexity-in-bits",
        USAGE,
        replace="torch.exp(-torch.xlogy(shares, shares).sum())",
        by="torch.exp2(-torch.xlogy(shares, shares).sum())",
        why="2 to an entropy in natural units",
        killed_by="aux.perplexity",
    ),
    Mutant(
        "usage-needs-two-tokens",
        USAGE,
        replace="(_counts(indices, codebook_size) > 0)",
        by="(_counts(indices, codebook_size) > 1)",
        why="a code that one token chose is taken for dead",
        killed_by="aux.usage",
    ),
    Mutant(
        "padding-is-the-first-code",
        USAGE,
        replace="indices[indices >= 0]",
        by="indices.clamp(min=0).flatten()",
        why="padding counts for code 0",
        killed_by="aux.padding",
    ),
)
