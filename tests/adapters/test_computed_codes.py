"""Codes that a module keeps as sums and counts alone, with a cache of their quotient that no state_dict holds."""

import pytest
import torch
from torch import nn

from vq_reference.testing.adapters.codegen.run_script import BROKEN, run
from vq_reference.testing.adapters.declare.moving_average import MovingAverage
from vq_reference.testing.adapters.declare.torch_quantizer import torch_quantizer
from vq_reference.testing.interface.errors import DeclarationContradicted
from vq_reference.testing.laws.registry import laws
from vq_reference.testing.laws.verdict import Verdict
from vq_reference.testing.run.judge import judge

LAWS = laws()


class Cached(nn.Module):
    """The quotient is made at the first look in eval, and forgotten where sums or counts change."""

    def __init__(self, dim, size, weight):
        super().__init__()
        self.register_buffer("sums", torch.randn(size, dim))
        self.register_buffer("counts", torch.ones(size))
        self.register_buffer("ready", torch.tensor(True))
        self.register_buffer("cache", None, persistent=False)
        self.weight, self.decay, self.moves = weight, 0.99, True

    @property
    def codes(self):
        if self.cache is None or self.training:
            self.cache = self.sums / self.counts[:, None]
        return self.cache

    def forward(self, x):
        flat = x.detach().reshape(-1, x.shape[-1])
        if self.training and not self.ready:
            self.begin(flat)
        indices = (flat[:, None] - self.codes).square().sum(dim=-1).argmin(dim=-1)
        q = self.codes[indices].reshape(x.shape)
        if self.training and self.moves:
            chosen = nn.functional.one_hot(indices, len(self.counts)).to(flat)
            self.counts.lerp_(chosen.sum(dim=0), 1 - self.decay)
            self.sums.lerp_(chosen.T @ flat, 1 - self.decay)
            self.forget()
        return q + (x - x.detach()), indices.reshape(x.shape[:-1]), self.weight * (x - q).square().mean()

    def begin(self, tokens):
        self.sums.copy_(tokens[torch.arange(len(self.sums)) % len(tokens)])
        self.counts.fill_(1.0)
        self.ready.fill_(True)
        self.forget()

    def forget(self):
        self.cache = None

    def _load_from_state_dict(self, *given):
        super()._load_from_state_dict(*given)
        self.forget()


class Filled(Cached):
    """The cache is there from the start, as a buffer."""

    def __init__(self, dim, size, weight):
        super().__init__(dim, size, weight)
        self.forget()

    def forget(self):
        self.cache = self.sums / self.counts[:, None]


class Refusing(Cached):
    """Without codes it does not answer."""

    def forward(self, x):
        if not self.training and not self.ready:
            raise RuntimeError("train first")
        return super().forward(x)


class Plain(Cached):
    """No cache at all."""

    @property
    def codes(self):
        return self.sums / self.counts[:, None]


class Stale(Cached):
    """moshi 0.2.13: a state_dict is loaded below codes that stay."""

    _load_from_state_dict = nn.Module._load_from_state_dict


class Early(Cached):
    """moshi 0.2.13: codes that eval has looked at before the first batch outlive it."""

    @property
    def codes(self):
        if self.cache is None:
            self.cache = self.sums / self.counts[:, None]
        return self.cache

    def begin(self, tokens):
        cache = self.cache
        super().begin(tokens)
        self.cache = cache


class Ageing(Plain):
    """State that lasts, hidden from every state_dict, and moved by eval too."""

    def __init__(self, dim, size, weight):
        super().__init__(dim, size, weight)
        self.register_buffer("age", torch.zeros(size), persistent=False)
        self.best = float("nan")

    def forward(self, x):
        given = super().forward(x)
        self.age += 1
        self.age[given[1].reshape(-1)] = 0
        return given


class Doubled(Plain):
    """Not what was declared."""

    @property
    def codes(self):
        return 2 * self.sums / self.counts[:, None]


def given_later(wanted):
    """Return a module whose weight of the loss is its trainer's."""
    module = Stale(wanted.dim, wanted.codebook_size, None)
    module.weight = wanted.commitment_weight
    return module


def of(module):
    return lambda wanted: module(wanted.dim, wanted.codebook_size, wanted.commitment_weight)


def adapter(make, codebook="codes", dtype="float32"):
    return torch_quantizer(
        make,
        codebook,
        loss_weights=lambda wanted: (0.0, wanted.commitment_weight),
        freeze=lambda module: setattr(module, "moves", False),
        average=MovingAverage("counts", "sums", "decay", initialised="ready"),
        dtype=dtype,
    )


@pytest.mark.parametrize("module", [Cached, Filled, Refusing, Plain])
def test_codes_made_of_sums_and_counts_are_judged_like_others(module):
    """A cache that is filled in eval is no change of state."""
    tested, families = adapter(of(module)), ("call", "ema", "initialise", "state")
    chosen = [law for law in LAWS.values() if law.level == "must" and law.id.split(".")[0] in families]
    verdicts = {law.id: judge(law, tested, "quick", None)[0].verdict for law in chosen}
    assert {law for law, verdict in verdicts.items() if verdict not in (Verdict.HELD, Verdict.NOT_APPLICABLE)} == set()
    assert {verdicts[law] for law in ("ema.codes", "state.loaded_over", "state.eval", "call.state")} == {Verdict.HELD}


@pytest.mark.parametrize(
    ("module", "law"),
    [(Stale, "state.loaded_over"), (Early, "initialise.scale"), (Ageing, "state.eval"), (Ageing, "call.state")],
)
def test_a_cache_that_outlives_what_it_was_made_of_is_found_and_what_is_no_cache(module, law):
    assert judge(LAWS[law], adapter(of(module)), "default", None)[0].verdict is Verdict.BROKEN


@pytest.mark.parametrize(("make", "later"), [(of(Stale), False), (given_later, True), (of(Ageing), False)])
def test_a_script_sets_what_the_adapter_sets_and_no_cache_that_the_constructor_leaves_empty(make, later):
    outcome, _ = judge(LAWS["state.loaded_over"], adapter(make), "quick", None)
    script = outcome.counterexample.script
    assert run(script).code == BROKEN
    assert ("layer.weight = " in script) == later


def test_a_shape_the_wrong_way_round_is_said_of_computed_codes_too():
    with pytest.raises(DeclarationContradicted, match=r"\(3, 2\), for codes of \(2, 3\).*add .T"):
        adapter(of(Plain), "codes.T")


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_computed_codes_are_set_in_every_dtype(dtype):
    assert judge(LAWS["nearest.choice"], adapter(of(Plain), dtype=dtype), "quick", None)[0].verdict is Verdict.HELD


def test_codes_that_are_no_quotient_are_refused():
    with pytest.raises(DeclarationContradicted, match=r"'codes'.* nor sums ÷ counts"):
        adapter(of(Doubled))


def test_without_an_average_codes_that_are_computed_are_refused():
    with pytest.raises(DeclarationContradicted, match="average= where they are sums ÷ counts"):
        torch_quantizer(lambda wanted: Cached(wanted.dim, wanted.codebook_size, 1.0), "codes", loss_weights=(0.0, 1.0))
