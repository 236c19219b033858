"""What goes wrong in low precision."""

from vq_reference.testing.mutants.mutant import Mutant

LAYER = "vq_reference.nn.vector_quantize"
OUTPUT = "output = self.projections.leave(chosen.flatten(-2), valid).to(x.dtype)"
COARSE = "* 2).round() / 2"

MUTANTS = (
    Mutant(
        "search-in-whole-numbers",
        LAYER,
        replace="self.codebooks.choose(tokens.detach(), codes)",
        by="self.codebooks.choose(tokens.detach().round(), codes)",
        why="tokens are rounded to whole numbers before codes are compared",
        killed_by="low.nearest",
    ),
    Mutant(
        "output-in-eight-bits",
        LAYER,
        replace=OUTPUT,
        by=f"output = ((self.projections.leave(chosen.flatten(-2), valid) {COARSE}).to(x.dtype)",
        why="the output is rounded more coarsely than its dtype",
        killed_by="low.output",
    ),
    Mutant(
        "a-penalty-of-weight-zero",
        LAYER,
        replace=OUTPUT,
        by=f"{OUTPUT}\n        output = output + 0 * x.square().sum()",
        why="a term of weight 0 that overflows: 0 times infinity is NaN",
        killed_by="low.finite",
    ),
    Mutant(
        "output-stays-wide",
        LAYER,
        replace=OUTPUT,
        by="output = self.projections.leave(chosen.flatten(-2), valid)",
        why="float16 tokens come out as float32",
        killed_by="low.form",
    ),
)
