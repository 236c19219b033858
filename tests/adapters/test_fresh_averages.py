"""A layer as it is constructed: what may stand in counts and sums at the start, and what the first step makes of it."""

import numpy as np
import pytest
import torch
from torch import nn

from vq_reference.testing.adapters.declare.moving_average import MovingAverage
from vq_reference.testing.adapters.declare.torch_quantizer import torch_quantizer
from vq_reference.testing.laws.bounds import bounds_state
from vq_reference.testing.laws.registry import laws
from vq_reference.testing.laws.verdict import Verdict
from vq_reference.testing.reporting.known_bugs import nearest_known_bug
from vq_reference.testing.run.judge import judge

FRESH = laws()["ema.fresh"]


class Published(nn.Module):
    """The formula for all codes, from counts 1 and sums that are the codes."""

    count = 1.0

    def __init__(self, dim, size, weight):
        super().__init__()
        self.register_buffer("codes", torch.randn(size, dim))
        self.register_buffer("sums", self.first_sums())
        self.register_buffer("counts", torch.full((size,), self.count))
        self.weight, self.decay, self.eps, self.moves = weight, 0.99, 1e-5, True

    def first_sums(self):
        return self.codes.clone()

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        indices = (flat[:, None] - self.codes).square().sum(dim=-1).argmin(dim=-1)
        q = self.codes[indices].reshape(x.shape)
        if self.training and self.moves:
            self.follow(flat.detach(), nn.functional.one_hot(indices, len(self.codes)).to(flat))
        return q + (x - x.detach()), indices.reshape(x.shape[:-1]), self.weight * (x - q).square().mean()

    @torch.no_grad()
    def follow(self, x, chosen):
        self.counts.lerp_(chosen.sum(dim=0), 1 - self.decay)
        self.sums.lerp_(chosen.T @ x, 1 - self.decay)
        self.codes.copy_(self.moved(self.counts, self.sums))

    def moved(self, counts, sums):
        total = counts.sum()
        return sums / ((counts + self.eps) / (total + len(counts) * self.eps) * total)[:, None]


class LeftAlone(Published):
    """Nothing is counted at the start, and a code without tokens stays."""

    count = 0.0

    def first_sums(self):
        return torch.zeros_like(self.codes)

    def moved(self, counts, sums):
        return torch.where(counts[:, None] > 0, Published.moved(self, counts, sums), self.codes)


class Unbiased(LeftAlone):
    """Averages from 0, rid of the bias of their start, as in Adam: a code without tokens becomes 0."""

    def moved(self, counts, sums):
        self.steps = getattr(self, "steps", 0) + 1
        bias = 1 - self.decay**self.steps
        return Published.moved(self, counts / bias, sums / bias)


class FromData(Published):
    """The first batch becomes the codes, without being asked for."""

    def forward(self, x):
        if self.training and not hasattr(self, "begun"):
            self.begun = True
            tokens = x.detach().reshape(-1, x.shape[-1])
            self.codes.copy_(tokens[torch.arange(len(self.codes)) % len(tokens)])
            self.sums.copy_(self.codes)
        return super().forward(x)


class Uncounted(Published):
    """MONAI's EMAQuantizer, and many before it."""

    count = 0.0


class RandomSums(Uncounted):
    """The notebook that is copied most: sums are drawn apart from the codes."""

    def first_sums(self):
        return torch.randn_like(self.codes)


class UncountedWhereUsed(Uncounted):
    """A code without tokens stays, and one with tokens has its old sum without the count of it."""

    moved = LeftAlone.moved


class Halved(Published):
    """A fault that breaks the laws that an undeclared ε breaks."""

    def moved(self, counts, sums):
        return Published.moved(self, 2 * counts, sums)


def adapter(module, epsilon="eps"):
    return torch_quantizer(
        lambda wanted: module(wanted.dim, wanted.codebook_size, wanted.commitment_weight),
        "codes",
        loss_weights=lambda wanted: (0.0, wanted.commitment_weight),
        freeze=lambda module: setattr(module, "moves", False),
        average=MovingAverage("counts", "sums", "decay", epsilon),
    )


@pytest.mark.parametrize(
    ("module", "epsilon", "named"),
    [
        (Published, None, {"ema.codes", "ema.unused"}),
        (Published, "eps", set()),
        (Halved, "eps", set()),
        (Halved, None, set()),
    ],
)
def test_an_epsilon_that_is_not_declared_is_named_as_the_likely_cause(module, epsilon, named):
    """The codes are then a little off what the declared average says, and laws break by that little."""
    tested = adapter(module, epsilon)
    of = [
        judge(laws()[f"ema.{name}"], tested, "default", None)[0]
        for name in ["statistics", "fixed_point", "codes", "unused", "shrinkage"]
    ]
    likely = {outcome.law: nearest_known_bug(outcome.law, of) for outcome in of}
    assert {law for law, bug in likely.items() if bug and "not declared" in bug.name} == named


@pytest.mark.parametrize("module", [Published, LeftAlone, Unbiased, FromData])
def test_right_ways_to_begin_hold(module):
    outcome, _ = judge(FRESH, adapter(module), "default", None)
    assert outcome.verdict is Verdict.HELD, outcome.message


@pytest.mark.parametrize("module", [Uncounted, RandomSums, UncountedWhereUsed])
def test_sums_without_their_counts_break_the_first_step(module):
    outcome, _ = judge(FRESH, adapter(module), "quick", None)
    assert outcome.verdict is Verdict.BROKEN
    assert nearest_known_bug("ema.fresh", [outcome]).name == "counts begin at 0"


def test_the_bound_is_nearly_reached():
    """One token on its code, nothing counted before: N_k = N = 1 − γ, and the code is (N + Kε)/(N + ε) times itself."""
    decay, epsilon, size = 0.875, 2.0**-10, 4
    count = 1 - decay
    excess = (count + size * epsilon) / (count + epsilon) - 1
    (bound,) = bounds_state.ema_first_step(np.ones(1), 1, size, decay, epsilon, 2.0**-53)[0]
    # its own ε takes one of the K parts away; what rounding adds to the bound is less than the second ε here
    assert (size - 1) / size / (1 + 2 * epsilon / count) < excess / bound <= 1


def test_the_layer_of_the_law_is_the_same_each_time_and_moves_no_other_draw():
    tested = adapter(Published)
    torch.manual_seed(3)
    expected = torch.randn(1)
    torch.manual_seed(3)
    first, second = (judge(FRESH, tested, "quick", None)[0].margins for _ in range(2))
    assert first == second
    assert torch.randn(1) == expected
