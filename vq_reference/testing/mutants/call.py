"""What goes wrong around the mathematics: modes, memory, what is kept between calls, and the form of the answer."""

from vq_reference.testing.mutants.mutant import Mutant
from vq_reference.testing.verdict import Verdict

LAYER = "vq_reference.nn.sim_vq"
RETURNED = "return output.movedim(-1, 1) if self.channel_first else output, indices.reshape(x.shape[:-1]), loss"

MUTANTS = (
    Mutant(
        "eval-without-transform",
        LAYER,
        replace="codebook = self.codebook\n",
        by="codebook = self.codebook if self.training else self.frozen_codebook\n",
        why="eval mode chooses among the frozen codes",
        killed_by="call.eval",
    ),
    Mutant(
        "quantizes-in-training-only",
        LAYER,
        replace="output = estimator(x.to(dtype), q.to(dtype).reshape(x.shape))",
        by="output = estimator(x.to(dtype), q.to(dtype).reshape(x.shape)) if x.requires_grad else x.to(dtype)",
        why="an input that asks for no gradient comes back as it was",
        killed_by="call.no_grad",
    ),
    Mutant(
        "commitment-weight-fades",
        LAYER,
        replace="loss = self.commitment_weight * (",
        by="self.commitment_weight *= 0.5\n        loss = self.commitment_weight * (",
        why="a schedule inside the layer: every call weighs the loss less",
        killed_by="call.repeated",
    ),
    Mutant(
        "frozen-codes-shrink",
        LAYER,
        replace="codes: Tensor = self.code_transform(self.frozen_codebook)",
        by="codes: Tensor = self.code_transform(self.frozen_codebook.mul_(0.5))",
        why="a buffer is changed in place by reading it",
        killed_by="call.state",
    ),
    Mutant(
        "answers-cached",
        LAYER,
        replace=RETURNED,
        by="""key = (x.detach().numpy().tobytes(), x.shape, self.training, x.requires_grad, torch.is_grad_enabled())
        answer = output, indices.reshape(x.shape[:-1]), loss
        return self.__dict__.setdefault("answers", {}).setdefault(key, answer)""",
        why="the answer to an input is kept and handed out again: whoever writes into it changes the next one",
        killed_by="call.aliased",
    ),
    Mutant(
        "two-dimensions-are-refused",
        LAYER,
        replace="if x.ndim < 2 or",
        by="if x.ndim < 3 or",
        why="input of (B, D) raises, as in 1.20.0 to 1.20.8 (issue 170)",
        killed_by="call.leading",
        verdict=Verdict.CRASHED,
    ),
    Mutant(
        "input-read-as-if-contiguous",
        LAYER,
        replace="x.reshape(-1, self.dim)",
        by="x.as_strided((x.numel() // self.dim, self.dim), (self.dim, 1))",
        why="memory is read in the order in which a contiguous tensor would lie there",
        killed_by="call.strided",
    ),
    Mutant(
        "input-written-in-place",
        LAYER,
        replace="x = x.movedim(1, -1) if self.channel_first else x\n",
        by="x.detach().mul_(1)\n",
        why="the input is written to: where tokens share their memory that is an error",
        killed_by="call.expanded",
        verdict=Verdict.CRASHED,
    ),
    Mutant(
        "decodes-frozen-codes",
        LAYER,
        replace="codes = _look_up(self.codebook, indices)",
        by="codes = _look_up(self.frozen_codebook, indices)",
        why="indices are decoded to the frozen codes, without the transform",
        killed_by="decode.output",
    ),
    Mutant(
        "output-widened",
        LAYER,
        replace="dtype = torch.promote_types(x.dtype, codebook.dtype)",
        by="dtype = torch.float64",
        why="the output has another dtype than the input",
        killed_by="form.output",
    ),
    Mutant(
        "indices-flattened",
        LAYER,
        replace="indices.reshape(x.shape[:-1])",
        by="indices",
        why="one flat row of indices for an input of any shape",
        killed_by="form.indices",
    ),
    Mutant(
        "loss-of-shape-one",
        LAYER,
        replace=RETURNED,
        by=RETURNED + ".reshape(1)",
        why="the loss has shape (1,) where a scalar was promised: the two do not stack (issue 191)",
        killed_by="form.loss",
    ),
)
