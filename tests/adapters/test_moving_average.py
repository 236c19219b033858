"""A user's module with codes that are moving averages: named in one line, judged by the laws of layers that last."""

import pytest
import torch
from torch import nn

from vq_reference.nn import VectorQuantize
from vq_reference.testing.adapters.declare.moving_average import MovingAverage
from vq_reference.testing.adapters.declare.torch_quantizer import torch_quantizer
from vq_reference.testing.interface.errors import DeclarationContradicted
from vq_reference.testing.laws.registry import laws
from vq_reference.testing.laws.verdict import Verdict
from vq_reference.testing.run.judge import judge

LAWS = laws()
FAULTS = (Verdict.BROKEN, Verdict.CRASHED)


class Book(nn.Module):
    """Codes as (D, K), with γ, ε, τ and a flag for codes that are still to be taken from data."""

    def __init__(self, dim, size):
        super().__init__()
        self.register_buffer("embed", torch.randn(dim, size))
        self.register_buffer("average", self.embed.clone())
        self.register_buffer("used", torch.ones(1, size))
        self.register_buffer("ready", torch.tensor(True))
        self.gamma, self.eps, self.threshold = 0.9, 1e-5, 0.0

    def follow(self, x, indices):
        one_hot = nn.functional.one_hot(indices, self.used.shape[1]).to(x.dtype)
        self.used.copy_(self.gamma * self.used + (1 - self.gamma) * one_hot.sum(dim=0))
        self.average.copy_(self.gamma * self.average + (1 - self.gamma) * x.T @ one_hot)
        total = self.used.sum()
        smooth = (self.used + self.eps) / (total + self.used.shape[1] * self.eps) * total
        chosen = one_hot.sum(dim=0) > 0
        self.embed.copy_(torch.where(chosen, self.average / smooth, self.embed))
        dead = self.used[0] < self.threshold
        if dead.any():
            self.put(x, dead)

    def put(self, x, where):
        count = max(1.0, self.threshold / self.gamma**2)
        drawn = x[torch.randperm(len(x)).repeat(self.used.shape[1])[: self.used.shape[1]]].T
        self.embed.copy_(torch.where(where, drawn, self.embed))
        self.average.copy_(torch.where(where, count * drawn, self.average))
        self.used.copy_(torch.where(where, count, self.used))


class Channels(nn.Module):
    """A quantizer of (B, D, T), with a mask called `present`, that returns a dict."""

    def __init__(self, dim, size, weight):
        super().__init__()
        self.book, self.weight = Book(dim, size), weight

    def forward(self, x, present=None):
        x = x.movedim(1, -1)
        present = torch.ones(x.shape[:-1], dtype=torch.bool) if present is None else present
        tokens = torch.where(present[..., None], x, 0.0)
        if self.training and not self.book.ready and present.any():
            self.book.put(tokens[present].detach(), torch.ones_like(self.book.used[0], dtype=torch.bool))
            self.book.ready.fill_(True)
        indices = (tokens[..., None, :] - self.book.embed.T).square().sum(dim=-1).argmin(dim=-1)
        q = torch.where(present[..., None], self.book.embed.T[indices], 0.0)
        # of no token at all: the sum of nothing
        loss = self.weight * (tokens - q).square().sum() / (present.sum().clamp(min=1) * x.shape[-1])
        # a forward without gradients is the first of two that activation checkpointing makes
        if self.training and present.any() and torch.is_grad_enabled():
            with torch.no_grad():
                self.book.follow(tokens[present], indices[present])
        output = q.detach() - (tokens.detach() - tokens)
        return {"z": output.movedim(-1, 1), "codes": torch.where(present, indices, -1), "loss": loss}


NAMES = {
    "counts": "book.used",
    "sums": "book.average.T",
    "decay": "book.gamma",
    "epsilon": "book.eps",
    "replace_below": "book.threshold",
    "initialised": "book.ready",
}


COUNTED = {name: NAMES[name] for name in ("counts", "sums", "decay")}


def adapter(module=Channels, **changed):
    return torch_quantizer(
        lambda wanted: module(wanted.dim, wanted.codebook_size, wanted.commitment_weight * wanted.beta),
        "book.embed.T",
        x="B D T",
        output_at="z",
        indices_at="codes",
        loss_at="loss",
        loss_weights=changed.pop("loss_weights", lambda wanted: (0.0, wanted.commitment_weight * wanted.beta)),
        loss_reduction=changed.pop("loss_reduction", "mean"),
        freeze=lambda module: setattr(module.book, "follow", lambda x, indices: None),
        mask=changed.pop("mask", "present"),
        lengths=changed.pop("lengths", None),
        average=MovingAverage(**{**NAMES, **changed}),
    )


def test_a_right_module_breaks_none_of_the_laws_of_layers_that_last():
    made = adapter()
    families = ("state", "ema", "initialise", "replace", "mask", "heads")
    its = [law for law in LAWS.values() if law.id.startswith(families) and not made.lacks(law.needs)]
    assert len(its) > 25
    assert not [o.law for o in (judge(law, made, "quick", None)[0] for law in its) if o.verdict in FAULTS]


class Decoding(Channels):
    """Any rank, as the layout says; one that decodes, and can do so wrongly."""

    turned = 1.0

    def __init__(self, dim, size, weight, axis, rank):
        super().__init__(dim, size, weight)
        self.axis, self.rank = axis, rank

    def forward(self, x, present=None):
        assert x.ndim == self.rank
        if present is not None:
            present = present.reshape(len(present), -1)
        tokens = x.movedim(self.axis, -1)
        given = super().forward(tokens.reshape(len(x), -1, tokens.shape[-1]).movedim(-1, 1), present)
        z = given["z"].movedim(1, -1).reshape(tokens.shape).movedim(-1, self.axis)
        return {**given, "z": z, "codes": given["codes"].reshape(tokens.shape[:-1])}

    def look_up(self, indices):
        assert indices.ndim == self.rank - 1
        return self.turned * self.book.embed.T[indices].movedim(-1, self.axis)


class Turned(Decoding):
    """Its decoder gives the codes with the other sign."""

    turned = -1.0


LAID = [("B T D", -1, 3), ("B D T", 1, 3), ("B H W D", -1, 4), ("B D H W", 1, 4), ("N D", -1, 2), ("... D", -1, 3)]


def decoding(module, decode, x, axis, rank, **changed):
    return torch_quantizer(
        lambda wanted: module(wanted.dim, wanted.codebook_size, wanted.commitment_weight * wanted.beta, axis, rank),
        "book.embed.T",
        x=x,
        output_at="z",
        indices_at="codes",
        loss_at="loss",
        loss_weights=lambda wanted: (0.0, wanted.commitment_weight * wanted.beta),
        freeze=lambda module: setattr(module.book, "follow", lambda x, indices: None),
        decode=decode,
        mask="present",
        average=MovingAverage(**NAMES),
        **changed,
    )


@pytest.mark.parametrize("decode", ["look_up", lambda module, indices: module.look_up(indices)])
@pytest.mark.parametrize(("x", "axis", "rank"), LAID)
def test_a_module_is_called_and_decodes_as_its_layout_says(decode, x, axis, rank):
    right = decoding(Decoding, decode, x, axis, rank)
    for law in ("heads.decode", "heads.output", "mask.tokens"):
        outcome, _ = judge(LAWS[law], right, "quick", None)
        assert outcome.verdict is Verdict.HELD, outcome.message
    assert judge(LAWS["heads.decode"], decoding(Turned, decode, x, axis, rank), "quick", None)[0].verdict in FAULTS


class Flat(Decoding):
    """Its indices are flattened."""

    def forward(self, x, present=None):
        given = super().forward(x, present)
        return {**given, "codes": given["codes"].reshape(-1)}

    def look_up(self, indices):
        assert indices.ndim == 1
        return super().look_up(indices[None])


def test_flattened_indices_are_decoded_as_they_lie():
    made = decoding(Flat, "look_up", "B D T", 1, 3, indices="(B T)")
    for law in ("heads.decode", "heads.output"):
        assert judge(LAWS[law], made, "quick", None)[0].verdict is Verdict.HELD


class Elsewhere(Decoding):
    """Its tensors lie in an order of their own: channels first, then sequences; indices with positions first."""

    def forward(self, x, present=None):
        """Return the same, elsewhere."""
        given = super().forward(x.permute(1, 2, 0), present)
        return {**given, "z": given["z"].movedim(-1, 1), "codes": given["codes"].T}

    def look_up(self, indices):
        """Return the outputs, channels on axis 1."""
        return super().look_up(indices.T).movedim(-1, 1)


def test_tensors_may_lie_in_any_order():
    made = decoding(Elsewhere, "look_up", "D B T", -1, 3, output="B D T", indices="T B")
    for law in ("heads.decode", "heads.output", "ema.codes"):
        assert judge(LAWS[law], made, "quick", None)[0].verdict is Verdict.HELD


class Unpadded(Channels):
    """Whoever wrote it forgot the mask in the loss."""

    def forward(self, x, present=None):
        """Return the loss of all tokens."""
        given = super().forward(x, present)
        return {**given, "loss": self.weight * (x - given["z"].detach()).square().mean()}


class Forgetful(Channels):
    """Its sums are not saved."""

    def __init__(self, dim, size, weight):
        super().__init__(dim, size, weight)
        self.book.register_buffer("average", self.book.average, persistent=False)


@pytest.mark.parametrize(("module", "law"), [(Unpadded, "mask.content"), (Forgetful, "state.loaded")])
def test_a_faulty_module_breaks_the_law_of_its_fault(module, law):
    outcome, _ = judge(LAWS[law], adapter(module), "default", None)
    assert outcome.verdict is Verdict.BROKEN
    assert "class" not in outcome.counterexample.script
    assert f"{module.__name__}(" in outcome.counterexample.script


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"counts": "book.usage"}, r"average.counts is declared as 'book.usage', found: nothing there .*book.used.*"),
        ({"counts": "book.ready"}, r"average.counts is declared as 'book.ready', found: \(\), for 2 codes"),
        ({"sums": "book.average"}, r"average.sums is declared as 'book.average', found: \(3, 2\), .*add .T"),
        ({"decay": "gamma"}, r"average.decay is declared as 'gamma', found: nothing there .*book.gamma"),
        ({"mask": "mask"}, r"mask is declared as 'mask', found: forward\(x, present\)"),
    ],
)
def test_a_name_that_does_not_fit_is_named_with_what_there_is(changed, said):
    with pytest.raises(DeclarationContradicted, match=said):
        adapter(**changed)


class Still(Channels):
    """Its counts are never counted."""

    def __init__(self, dim, size, weight):
        super().__init__(dim, size, weight)
        self.book.register_buffer("idle", torch.ones(1, size))


def test_a_buffer_that_does_not_move_is_not_the_counts():
    with pytest.raises(DeclarationContradicted, match=r"'book\.idle', found: a buffer that a call in training leaves"):
        adapter(Still, counts="book.idle")


def test_a_weight_that_cannot_be_asked_for_is_one_of_its_own():
    fixed = adapter(lambda dim, size, weight: Channels(dim, size, 0.25), loss_weights=(0.0, 0.25))
    for law in ("heads.loss", "mask.tokens"):
        assert judge(LAWS[law], fixed, "quick", None)[0].verdict is Verdict.HELD
    assert judge(LAWS["heads.loss"], adapter(loss_weights=(0.0, 0.25)), "quick", None)[0].verdict is Verdict.BROKEN


def test_an_instance_is_refused():
    with pytest.raises(ValueError, match="average is given for an instance"):
        torch_quantizer(
            Channels(3, 2, 1.0),
            "book.embed.T",
            output_at="z",
            indices_at="codes",
            loss_at="loss",
            x="B D T",
            loss_weights=(0, 1),
            average=MovingAverage(**COUNTED),
        )


def averages(**declared):
    """Return our own layer, declared as a user would."""
    asked = []

    def make(wanted):
        asked.append(wanted.estimator)
        weights = {"beta": 1.0, "commitment_weight": wanted.commitment_weight}
        return VectorQuantize(wanted.dim, wanted.codebook_size, estimator=wanted.estimator, **weights)

    book = {each: f"codebooks.0.{each}" for each in ("counts", "sums", "decay", "epsilon")}
    made = torch_quantizer(
        make,
        "codebooks.0.codes",
        loss_weights=lambda wanted: (0.0, wanted.commitment_weight),
        average=MovingAverage(**book),
        **declared,
    )
    return made, asked


@pytest.mark.parametrize("law", ["heads.output", "heads.gradient"])
def test_a_layer_that_declares_the_rotation_alone_is_not_asked_for_another_gradient(law):
    rotated, asked = averages(estimator="rotation")
    outcome, _ = judge(LAWS[law], rotated, "quick", None)
    assert outcome.verdict is Verdict.NOT_APPLICABLE
    judge(LAWS["state.copied"], rotated, "quick", None)
    assert set(asked) == {"rotation"}
    both, _ = averages(estimator=("rotation", "straight_through"))
    assert judge(LAWS[law], both, "quick", None)[0].verdict is Verdict.HELD


class Summed(Channels):
    """Its loss is a sum over the entries of its tokens."""

    def forward(self, x, present=None):
        """Return the mean times the number of entries that it is of."""
        given = super().forward(x, present)
        tokens = x[:, 0].numel() if present is None else present.sum().clamp(min=1)
        return {**given, "loss": given["loss"] * tokens * x.shape[1]}


def test_a_sum_over_tokens_leaves_padding_out():
    assert judge(LAWS["mask.tokens"], adapter(Summed, loss_reduction="sum"), "quick", None)[0].verdict is Verdict.HELD


class Lengths(Channels):
    """Takes lengths, and no mask."""

    slack = 0

    def forward(self, x, lengths=None):
        """Count positions before the length of each sequence."""
        positions = torch.arange(x.shape[2])
        return super().forward(x, None if lengths is None else positions < lengths[:, None] + self.slack)


class OneTooMany(Lengths):
    """The first padding token counts."""

    slack = 1


@pytest.mark.parametrize("law", ["mask.content", "mask.padding", "mask.tokens"])
def test_padding_may_be_told_by_lengths_alone(law):
    right, wrong = (adapter(each, mask=None, lengths="lengths") for each in (Lengths, OneTooMany))
    assert judge(LAWS[law], right, "quick", None)[0].verdict is Verdict.HELD
    assert judge(LAWS[law], wrong, "quick", None)[0].verdict is Verdict.BROKEN
