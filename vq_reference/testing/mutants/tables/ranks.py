"""What goes wrong between processes that train one codebook."""

from vq_reference.testing.mutants.mutant import Mutant

DISTRIBUTED = "vq_reference.nn.distributed"

MUTANTS = (
    Mutant(
        "sums-of-this-rank-alone",
        DISTRIBUTED,
        replace="    dist.all_reduce(total)\n    return total",
        by="    dist.all_reduce(total)\n    return value",
        why="every rank follows its own tokens, and its codes",
        killed_by="state.ranks",
    ),
    Mutant(
        "drawn-tokens-stay-on-their-rank",
        "vq_reference.nn.draw",
        replace="return sum_over_ranks(drawn)",
        by="return drawn",
        why="of the tokens that become codes each rank has its own, and zeros for those of others",
        killed_by="state.ranks",
    ),
    Mutant(
        "mean-over-ranks",
        DISTRIBUTED,
        replace="    dist.all_reduce(total)\n    return total",
        by="    dist.all_reduce(total)\n    return total / dist.get_world_size()",
        why="counts and sums are those of the mean rank: codes follow half as many tokens, and slower",
        killed_by="state.ranks_equal_one",
    ),
)
