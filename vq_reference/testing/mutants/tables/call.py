"""What goes wrong around the mathematics: modes, memory, what is kept between calls, and the form of the answer."""

from vq_reference.testing.laws.verdict import Verdict
from vq_reference.testing.mutants.mutant import Mutant

LAYER = "vq_reference.nn.sim_vq"
SUM_OF_HALVES = "(codebook_half + self.input_to_quantize_commit_loss_weight * encoder_half)"
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
        "beta-dropped-in-eval",
        LAYER,
        replace=SUM_OF_HALVES,
        by="(codebook_half + (self.input_to_quantize_commit_loss_weight if self.training else 0) * encoder_half)",
        why="the loss that is logged in evaluation lacks its encoder half",
        killed_by="eval.loss",
    ),
    Mutant(
        "no-loss-in-eval",
        LAYER,
        replace="loss = self.commitment_weight * (",
        by="loss = self.training * self.commitment_weight * (",
        why="eval gives the loss 0, and training's was declared: right where the adapter says so",
        killed_by="eval.loss",
        verdict=Verdict.CRASHED,
    ),
    Mutant(
        "loss-without-stops-in-eval",
        LAYER,
        replace="codebook_half = _mean_square(tokens.detach(), q)",
        by="codebook_half = _mean_square(tokens.detach() if self.training else tokens, q)",
        why="in eval the codebook half pulls the encoder too: its value is right",
        killed_by="eval.halves",
    ),
    Mutant(
        "straight-through-in-eval",
        LAYER,
        replace="estimator = rotate if self.rotation_trick else straight_through",
        by="estimator = rotate if self.rotation_trick and self.training else straight_through",
        why="eval has another estimator than training, and nobody says so",
        killed_by="eval.gradient",
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
        "fourth-call-without-beta",
        LAYER,
        replace=SUM_OF_HALVES,
        by="""(
            codebook_half + self.input_to_quantize_commit_loss_weight * encoder_half
            * (self.__dict__.setdefault("called", [0]).append(0) or len(self.called) < 5)
        )""",
        why="a warm-up inside the layer ends at the fourth call",
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
        "answers-of-eval-cached",
        LAYER,
        replace=RETURNED,
        by="""answer = output, indices.reshape(x.shape[:-1]), loss
        if self.training:
            return answer
        key = (x.detach().numpy().tobytes(), x.shape, x.requires_grad, torch.is_grad_enabled())
        return self.__dict__.setdefault("answers", {}).setdefault(key, answer)""",
        why="as answers-cached, where nothing learns: whoever writes into an answer changes the next one",
        killed_by="eval.aliased",
    ),
    Mutant(
        "two-dimensions-are-refused",
        "vq_reference.nn.arguments",
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
        "statistics-centre-the-input",
        LAYER,
        replace="return output.movedim(-1, 1) if",
        by="x.detach().sub_(x.detach().mean())\n        return output.movedim(-1, 1) if",
        why="once the answer is there, the input is centred in place for a statistic: the answer itself is right",
        killed_by="call.input",
    ),
    Mutant(
        "codes-of-the-first-call-are-compared",
        LAYER,
        replace="indices = nearest(tokens, codes)",
        by='indices = nearest(tokens, self.__dict__.setdefault("compared", codes.detach()))',
        why="the codes that the first call made are kept for the search: after an optimizer's step they are stale",
        killed_by="call.step",
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
        "decodes-squares-transposed",
        LAYER,
        replace="codes = _look_up(self.codebook, indices)",
        by="square = indices.ndim > 1 and indices.shape[-1] == indices.shape[-2]\n"
        "        codes = _look_up(self.codebook, indices.mT if square else indices)",
        why="batch and length are exchanged, which has another shape only where they differ",
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
    Mutant(
        "loss-widened",
        LAYER,
        replace=RETURNED,
        by=RETURNED + ".double()",
        why="the loss has another dtype than what is computed in",
        killed_by="form.loss",
    ),
)
