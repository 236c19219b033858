"""What goes wrong with state: what is saved, what is copied, and what a call may change."""

from vq_reference.testing.laws.verdict import Verdict
from vq_reference.testing.mutants.mutant import Mutant

LAYER = "vq_reference.nn.vector_quantize"
EMA = "vq_reference.nn.ema"
UPDATES = 'updates = self.codes_learn_by == "ema" and self.training and torch.is_grad_enabled()'

MUTANTS = (
    Mutant(
        "sums-not-saved",
        EMA,
        replace='self.register_buffer("sums", torch.empty(codebook_size, dim))',
        by='self.register_buffer("sums", torch.empty(codebook_size, dim), persistent=False)',
        why="the state_dict holds the codes, but not the sums that they are made of",
        killed_by="state.loaded",
    ),
    Mutant(
        "stale-cache-of-codes",
        LAYER,
        replace="codes = self.codebooks.raw().to(self.dtype)",
        by="""codes = self.codebooks.raw().to(self.dtype)
        if not self.training:
            codes = self.__dict__.setdefault("kept_codes", codes.detach())""",
        why="eval mode keeps the codes that it saw first: a state loaded later is not looked at",
        killed_by="state.loaded_over",
    ),
    Mutant(
        "schedule-in-a-lambda",
        EMA,
        replace="self.epsilon = epsilon\n",
        by="self.epsilon = epsilon\n        self.schedule = lambda: 0\n",
        why="an attribute that cannot be pickled",
        killed_by="state.copied",
        verdict=Verdict.CRASHED,
    ),
    Mutant(
        "step-bound-to-the-original",
        LAYER,
        replace="self.codebooks.update(tokens.detach(), indices)",
        by="""bound = (lambda books: lambda *given: books.update(*given))(self.codebooks)
            self.__dict__.setdefault("step", bound)(tokens.detach(), indices)""",
        why="a closure kept from the first call: a deep copy trains the codes of its original",
        killed_by="state.copied_apart",
    ),
    Mutant(
        "codes-follow-in-eval",
        LAYER,
        replace=UPDATES,
        by='updates = self.codes_learn_by == "ema" and (torch.is_grad_enabled() or not self.training)',
        why="validation data train the codes",
        killed_by="state.eval",
    ),
    Mutant(
        "codes-follow-without-gradients",
        LAYER,
        replace=UPDATES,
        by='updates = self.codes_learn_by == "ema" and self.training',
        why="a forward under no_grad takes a step although it was declared not to",
        killed_by="state.no_grad",
    ),
    Mutant(
        "codes-follow-tokens-with-gradients-only",
        LAYER,
        replace="if updates:\n            self.codebooks.update(",
        by="if updates and tokens.requires_grad:\n            self.codebooks.update(",
        why="the average stands still behind an encoder that is frozen",
        killed_by="state.frozen_encoder",
    ),
    Mutant(
        "calls-without-gradients-are-counted",
        LAYER,
        replace="        loss = self._loss(tokens, q, valid)\n",
        by="        self.beta *= 1 if torch.is_grad_enabled() else 0.5\n        loss = self._loss(tokens, q, valid)\n",
        why="every call without gradients weighs the loss less, and so the one that a checkpoint repeats",
        killed_by="state.checkpoint",
    ),
    Mutant(
        "eval-calls-are-counted",
        LAYER,
        replace="        loss = self._loss(tokens, q, valid)\n",
        by="        self.beta *= 1 if self.training else 0.5\n        loss = self._loss(tokens, q, valid)\n",
        why="every call in eval mode weighs the loss less from then on",
        killed_by="state.history",
    ),
    Mutant(
        "always-float32",
        LAYER,
        replace="wide = hidden.to(torch.promote_types(hidden.dtype, self.dtype))",
        by="wide = hidden.to(torch.float32)",
        why="a layer converted to float64 computes in float32",
        killed_by="state.float64",
    ),
)
