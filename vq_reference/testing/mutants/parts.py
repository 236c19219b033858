"""What goes wrong where parts meet: projections, heads, metric, mask, averages, stacks and low precision."""

from vq_reference.testing.mutants.mutant import Mutant

LAYER = "vq_reference.nn.vector_quantize"
BOOKS = "vq_reference.nn.codebooks"
EMA = "vq_reference.nn.ema"
PROJECTIONS = "vq_reference.nn.projections"
STACK = "vq_reference.nn.residual"
SIMVQ = "vq_reference.nn.sim_vq"
DECODED = "output = self.projections.leave(q.flatten(-2), (indices >= 0).any(dim=-1))"
LOOKED_UP = "q = self.codebooks.look_up(self.codes, indices)"
CHOSEN = "chosen = ESTIMATORS[self.estimator](tokens, q)"
OUTPUT = "output = self.projections.leave(chosen.flatten(-2), valid)"
LOSS = "loss = self._loss(tokens, q, valid)"
ENTRIES = "entries = (valid.sum() * self.heads * self.codebook_dim)"
UPDATE = "self.codebooks.update(tokens.detach(), indices)"
HIDDEN = "hidden = self.projections.enter(x, valid)"
HEADS = "heads = wide.reshape(*valid.shape, self.heads, self.codebook_dim)"
CODES = "codes = self.codebooks.raw().to(self.dtype)"
EACH_UPDATES = """for codebook, rows, chosen in zip(self, self._split(tokens, 1), self._split(indices, 0), strict=True):
            cast(EMACodebook, codebook).update(rows, chosen)"""
EACH = "output, chosen, loss = layer(residual, mask=valid)"
FROM_OTHER_TOKENS = """pool = iter({pool})
        for codebook in {books}:
            codebook._replace = lambda dead, _, valid, its=codebook, pool=next(pool): type(its)._replace(
                its, dead, pool, valid
            )
        {update}
        for codebook in {books}:
            del codebook._replace"""

DECODE = (
    Mutant(
        "decode-skips-the-projection-out",
        LAYER,
        replace=DECODED,
        by="output = q.flatten(-2)",
        why="indices are decoded into the space of the codes",
        killed_by="heads.decode",
    ),
    Mutant(
        "decode-keeps-heads-apart",
        LAYER,
        replace=DECODED,
        by=f"{DECODED}\n        output = output if self.projections.needed or len(self.codebooks) == self.heads else q",
        why="heads that share a codebook come out of decode on an axis of their own: (1, 5, 2, 4) for (1, 5, 8)",
        killed_by="heads.decode",
    ),
    Mutant(
        "all-heads-decode-from-the-first-codebook",
        LAYER,
        replace=LOOKED_UP,
        by="q = self.codebooks.look_up(self.codes[:1].expand_as(self.codes), indices)",
        why="decode takes separate codebooks for a shared one",
        killed_by="heads.decode",
    ),
    Mutant(
        "unit-codes-of-all-heads-from-the-first-codebook",
        LAYER,
        replace=LOOKED_UP,
        by="""codes = self.codes
        codes = codes[:1].expand_as(codes) if self.metric == "cosine" else codes
        q = self.codebooks.look_up(codes, indices)""",
        why="with the cosine metric decode takes separate codebooks for a shared one",
        killed_by="heads.decode",
    ),
)
PROJECTED = (
    Mutant(
        "loss-against-the-input",
        LAYER,
        replace=LOSS,
        by="""loss = self._loss(tokens, q, valid)
        if self.projections.needed:
            loss = self._loss(x, self.projections.leave(q.flatten(-2), valid).to(x.dtype), valid)""",
        why="the loss compares output and input, on the far sides of the projections, not code and projected token",
        killed_by="heads.loss",
    ),
    Mutant(
        "projection-learns-only-with-the-encoder",
        LAYER,
        replace=CHOSEN,
        by=f"{CHOSEN} if x.requires_grad or self.codes_learn_by == 'ema' else q.detach()",
        why="with trained codes and an encoder that is frozen, the output sends the projection in no gradient",
        killed_by="heads.parameters",
    ),
    Mutant(
        "projection-of-averaged-codes-learns-only-with-the-encoder",
        LAYER,
        replace=CHOSEN,
        by=f"{CHOSEN} if x.requires_grad or self.codes_learn_by != 'ema' else q",
        why="with averaged codes and an encoder that is frozen, the output sends the projection in no gradient",
        killed_by="heads.parameters",
    ),
    Mutant(
        "projections-not-pulled",
        LAYER,
        replace=LOSS,
        by="""kept = [(each, each.requires_grad) for each in self.projections.parameters()]
        for each, _ in kept:
            each.requires_grad_(False)
        loss = self._loss(self._heads(x, valid), q, valid)
        for each, asks in kept:
            each.requires_grad_(asks)""",
        why="the loss pulls the encoder through the projection in, which gets no gradient of it",
        killed_by="heads.parameters",
    ),
    Mutant(
        "direction-before-the-projection",
        LAYER,
        replace=HIDDEN,
        by="""x = unit(x.to(self.dtype)) if self.metric == "cosine" and self.projections.needed else x
        hidden = self.projections.enter(x, valid)""",
        why="the input is divided by its length before a projection with a bias: another direction comes out",
        killed_by="heads.loss",
    ),
    Mutant(
        "unit-length-behind-the-projection-out",
        LAYER,
        replace=OUTPUT,
        by="""if self.metric == "cosine":
            raw = self.codebooks.look_up(self.codebooks.raw().to(codes), indices)
            chosen = ESTIMATORS[self.estimator](tokens, raw)
            chosen = unit(chosen) if not self.projections.needed else chosen
        output = self.projections.leave(chosen.flatten(-2), valid)
        output = unit(output) if self.metric == "cosine" and self.projections.needed else output""",
        why="codes pass the projection out at their own length, and what comes out is divided by its own",
        killed_by="heads.output",
    ),
    Mutant(
        "sums-of-tokens-as-long-as-the-input",
        LAYER,
        replace=UPDATE,
        by="""lengths = torch.linalg.vector_norm(x, dim=-1), torch.linalg.vector_norm(tokens.flatten(-2), dim=-1)
            ratio = (lengths[0] / lengths[1].clamp(min=1e-3))[..., None, None] if self.projections.needed else 1
            self.codebooks.update((tokens * ratio).detach(), indices)""",
        why="the averages follow projected tokens with the length that they had before the projection",
        killed_by="ema.statistics",
    ),
    Mutant(
        "mean-over-padding-behind-a-projection",
        LAYER,
        replace=ENTRIES,
        by="""valid = torch.ones_like(valid) if self.projections.needed else valid
        entries = (valid.sum() * self.heads * self.codebook_dim)""",
        why="with a projection the loss is divided by the number of all tokens, padding included",
        killed_by="mask.tokens",
    ),
    Mutant(
        "bias-of-the-projection-in-the-loss",
        PROJECTIONS,
        replace="return torch.where(valid[..., None], hidden, 0)",
        by="return hidden",
        why="padding comes out of the projection in as its bias, and counts in the loss as a token with a code of zero",
        killed_by="mask.tokens",
    ),
)
HEADED = (
    Mutant(
        "mask-of-heads-in-the-order-of-tokens",
        LAYER,
        replace=UPDATE,
        by="""of_heads = valid.flatten().repeat(self.heads).reshape(indices.shape)
            chosen = self.codebooks.choose(tokens.detach(), codes)
            self.codebooks.update(tokens.detach(), torch.where(of_heads, chosen, -1))""",
        why="the mask is repeated as a whole for each head, where heads of a token are neighbours",
        killed_by="mask.tokens",
    ),
    Mutant(
        "divided-by-heads-twice-under-a-mask",
        LAYER,
        replace=ENTRIES,
        by="""entries = valid.sum() if valid.all() else valid.sum() * self.heads
        entries = (entries * self.heads * self.codebook_dim)""",
        why="a mask, repeated for each head, is counted and multiplied by the number of heads again",
        killed_by="mask.tokens",
    ),
    Mutant(
        "averages-follow-the-first-head",
        LAYER,
        replace=UPDATE,
        by="""firsts = torch.arange(self.heads, device=indices.device) < len(self.codebooks)
            self.codebooks.update(tokens.detach(), torch.where(firsts, indices, -1))""",
        why="of heads that share a codebook only the first one's tokens are counted",
        killed_by="ema.statistics",
    ),
    Mutant(
        "averages-of-the-first-head-for-all",
        BOOKS,
        replace=EACH_UPDATES,
        by="""rows, chosen = next(self._split(tokens, 1)), next(self._split(indices, 0))
        for codebook in self:
            cast(EMACodebook, codebook).update(rows, chosen)""",
        why="every codebook follows the tokens of the first head",
        killed_by="ema.statistics",
    ),
    Mutant(
        "channel-first-heads-interleaved",
        LAYER,
        replace=HEADS,
        by=f"""{HEADS}
        if self.channel_first:
            heads = wide.reshape(*valid.shape, self.codebook_dim, self.heads).transpose(-1, -2)""",
        why="channels along axis 1 are split as (D, H), those along the last axis as (H, D)",
        killed_by="heads.independent",
    ),
    Mutant(
        "dead-code-becomes-another-heads-token",
        BOOKS,
        replace=EACH_UPDATES,
        by=FROM_OTHER_TOKENS.format(
            pool="[*list(self._split(tokens, 1))[1:], next(self._split(tokens, 1))]",
            books="self",
            update=EACH_UPDATES,
        ),
        why="a dead code of one head's codebook is replaced by a token of the next head",
        killed_by="replace.parts",
    ),
    Mutant(
        "dead-code-becomes-an-unprojected-token",
        LAYER,
        replace=UPDATE,
        by="""raw = nn.functional.pad(x.detach().to(tokens.dtype), (0, self.heads * self.codebook_dim - self.dim))
            pool = self.codebooks._split(raw.reshape(tokens.shape), 1)
            for book, rows in zip(self.codebooks, pool):
                book._replace = lambda dead, _, valid, its=book, rows=rows: type(its)._replace(its, dead, rows, valid)
            self.codebooks.update(tokens.detach(), indices)
            for book in self.codebooks:
                del book._replace""",
        why="a dead code is replaced by what the input holds, before the projection",
        killed_by="replace.parts",
    ),
    Mutant(
        "sign-of-the-squares-of-unit-codes",
        LAYER,
        replace="self.codebooks.choose(tokens.detach(), codes)",
        by="""(
            torch.stack([
                (-(1 - 2 * tokens[..., h, :] @ codes[h % len(codes)].T) + codes[h % len(codes)].square().sum(-1))
                .argmax(-1) for h in range(self.heads)
            ], -1)
            if self.metric == "cosine"
            else self.codebooks.choose(tokens.detach(), codes)
        )""",
        why="-(1 - 2t·c) + ‖c‖² in place of -(1 - 2t·c + ‖c‖²), which unit codes hide: only a code of zero shows it",
        killed_by="heads.zero_code",
    ),
)
STATE = (
    Mutant(
        "learned-codes-kept-over-a-loaded-state",
        LAYER,
        replace=CODES,
        by=f"""{CODES}
        if self.training or self.codes_learn_by != "gradient":
            self.__dict__.pop("kept_codes", None)
        else:
            codes = self.__dict__.setdefault("kept_codes", codes.detach())""",
        why="codes that a gradient trains are kept in eval until training goes on, and not until a state is loaded",
        killed_by="state.loaded_over",
    ),
    Mutant(
        "averaged-codes-kept-in-eval",
        LAYER,
        replace=CODES,
        by=f"""{CODES}
        if not self.training and self.codes_learn_by == "ema":
            codes = self.__dict__.setdefault("kept_codes", codes)""",
        why="eval mode keeps the codes that it saw first: steps of the averages after a first validation are not seen",
        killed_by="state.history",
    ),
    Mutant(
        "codes-in-a-plain-attribute",
        EMA,
        replace='self.register_buffer("codes", torch.empty(codebook_size, dim))',
        by="self.codes = torch.empty(codebook_size, dim)",
        why="codes that are no buffer: .to() and .double() leave them where they are, and no state_dict holds them",
        killed_by="state.loaded",
    ),
)
LOW = (
    Mutant(
        "counts-smoothed-in-the-dtype-of-the-tokens",
        LAYER,
        replace=UPDATE,
        by="""self.codebooks.update(tokens.detach(), indices)
            for book in self.codebooks if x.dtype == torch.float16 else ():
                counts = book.counts.to(x.dtype)
                counts = (counts + book.epsilon) / (counts.sum() + len(counts) * book.epsilon) * counts.sum()
                book.codes.copy_(book.sums.to(x.dtype) / counts[:, None])""",
        why="in float16 the smoothed count of a dead code is 0: the code becomes infinite, and then NaN",
        killed_by="low.dead_code",
    ),
    Mutant(
        "indices-in-the-dtype-of-autocast",
        LAYER,
        replace="indices = torch.where(valid[..., None], self.codebooks.choose(tokens.detach(), codes), -1)",
        by="""indices = self.codebooks.choose(tokens.detach(), codes)
        product = tokens.new_ones(1, 1) @ tokens.new_ones(1, 1)
        indices = indices.to(product.dtype).long()
        indices = torch.where(valid[..., None], indices, -1)""",
        why="under autocast indices pass through bfloat16, which holds no odd number beyond 256",
        killed_by="low.exact",
    ),
)
STACKED = (
    Mutant(
        "later-layers-codes-kept-over-a-loaded-state",
        STACK,
        replace="q = output.detach()\n",
        by="""q = output.detach()
            if indices and not self.training:
                q = self.__dict__.setdefault(f"codes_of_{len(indices)}", layer.codes.detach().clone())[0][chosen]
            elif indices:
                self.__dict__.pop(f"codes_of_{len(indices)}", None)
""",
        why="from the second layer on, eval keeps tables of codes until the next training: a loaded state is not seen",
        killed_by="state.loaded_over",
    ),
    Mutant(
        "losses-of-the-wrong-layers-dropped",
        STACK,
        replace="stacked, torch.stack(losses)",
        by="stacked, torch.stack(losses[kept:] + losses[:kept])",
        why="the losses of the first layers are those that dropout makes 0",
        killed_by="stack.dropout",
    ),
    Mutant(
        "straight-through-around-the-projections",
        STACK,
        replace="output = self.projections.leave(ESTIMATORS[self.estimator](tokens, quantized), valid).to(x.dtype)",
        by="""output = self.projections.leave(quantized, valid).to(x.dtype)
        output = ESTIMATORS[self.estimator](x, output)""",
        why="the gradient goes from output to input past both projections, which get none",
        killed_by="stack.projections",
    ),
    Mutant(
        "stack-decodes-without-the-projection-out",
        STACK,
        replace="output = self.projections.leave(quantized, valid)\n",
        by="output = quantized\n",
        why="indices of a stack are decoded into the space of the codes",
        killed_by="stack.projections",
    ),
    Mutant(
        "later-layers-move-without-gradients",
        STACK,
        replace=EACH,
        by="""with torch.set_grad_enabled(torch.is_grad_enabled() or bool(indices)):
                output, chosen, loss = layer(residual, mask=valid)""",
        why="from the second layer on, codes take a step under no_grad",
        killed_by="state.no_grad",
    ),
)

# of a layer that is asked for one call at a time
OF_ONE_CALL = (
    Mutant(
        "transformed-codes-kept-in-eval",
        SIMVQ,
        replace="        return codes\n\n    def indices_to_codes",
        by="""        return codes if self.training else self.__dict__.setdefault("kept", codes)

    def indices_to_codes""",
        why="eval mode transforms the codes once: what an optimizer does to the transform from then on is not seen",
        killed_by="call.step",
    ),
)

MUTANTS = (*DECODE, *PROJECTED, *HEADED, *STATE, *LOW, *STACKED)
