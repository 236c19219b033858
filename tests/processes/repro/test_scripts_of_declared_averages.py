"""Scripts of a module whose average is declared by names: exit code 1 on the wrong one, 0 on the mended one."""

import importlib
import sys

import pytest
from run_script import alone

from vq_reference.testing.adapters.declare.moving_average import MovingAverage
from vq_reference.testing.adapters.declare.torch_quantizer import torch_quantizer
from vq_reference.testing.laws.registry import laws
from vq_reference.testing.run.judge import judge

RIGHT = """
import torch
from torch import nn


class Book(nn.Module):
    def __init__(self, dim, size):
        super().__init__()
        self.register_buffer("codes", torch.randn(size, dim))
        self.register_buffer("sums", self.codes.clone())
        self.register_buffer("counts", torch.ones(size))
        self.gamma, self.eps, self.dead_below, self.moves = 0.99, 1e-5, 0.0, True

    @torch.no_grad()
    def follow(self, x, indices):
        chosen = nn.functional.one_hot(indices, len(self.codes)).to(x.dtype)
        self.counts.mul_(self.gamma).add_(chosen.sum(0), alpha=1 - self.gamma)
        self.sums.mul_(self.gamma).add_(chosen.T @ x, alpha=1 - self.gamma)
        total, size = self.counts.sum(), len(self.counts)
        smooth = (self.counts + self.eps) / (total + size * self.eps) * total
        used = chosen.sum(0) > 0
        self.codes.copy_(torch.where(used[:, None], self.sums / smooth[:, None], self.codes))
        dead = self.counts < self.dead_below
        drawn = x[torch.randint(len(x), (int(dead.sum()),))]
        self.codes[dead] = drawn
        self.sums[dead], self.counts[dead] = self.codes[dead] * self.dead_below, self.dead_below


class Quantizer(nn.Module):
    def __init__(self, dim, size, weight):
        super().__init__()
        self.book, self.weight = Book(dim, size), weight

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        indices = (flat.detach()[:, None] - self.book.codes).square().sum(-1).argmin(-1)
        q = self.book.codes[indices].reshape(x.shape)
        if self.training and self.book.moves:
            self.book.follow(flat.detach(), indices)
        return q + (x - x.detach()), indices.reshape(x.shape[:-1]), self.weight * (x - q).square().mean()

    def look_up(self, indices):
        return self.book.codes[indices]
"""
# law → what is right, and what stands there instead
FAULTS = {
    "ema.codes": ("total + size * self.eps", "total + self.eps"),
    "ema.statistics": ("chosen.T @ x, alpha=1 - self.gamma", "chosen.T @ x, alpha=self.gamma"),
    "ema.fresh": ("torch.ones(size)", "torch.zeros(size)"),
    "replace.token": ("self.codes[dead] = drawn", "pass"),
    "heads.decode": ("return self.book.codes[indices]", "return -self.book.codes[indices]"),
}


def adapter(module):
    return torch_quantizer(
        lambda wanted: module.Quantizer(wanted.dim, wanted.codebook_size, wanted.commitment_weight),
        "book.codes",
        loss_weights=lambda wanted: (0.0, wanted.commitment_weight),
        freeze=lambda layer: setattr(layer.book, "moves", False),
        decode="look_up",
        average=MovingAverage("book.counts", "book.sums", "book.gamma", "book.eps", "book.dead_below"),
    )


@pytest.mark.parametrize("law", FAULTS)
def test_a_script_sets_what_the_law_set_and_holds_on_the_mended_module(law, tmp_path, monkeypatch):
    right, wrong = FAULTS[law]
    assert RIGHT.count(right) == 1
    name = f"declared_{law.replace('.', '_')}"
    (tmp_path / f"{name}.py").write_text(RIGHT.replace(right, wrong), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    found = judge(laws()[law], adapter(importlib.import_module(name)), "quick", None)[0].counterexample
    monkeypatch.delitem(sys.modules, name)
    assert found.script, found.no_script
    bad = alone(found.script, tmp_path)
    (tmp_path / f"{name}.py").write_text(RIGHT, encoding="utf-8")
    mended = alone(found.script, tmp_path)
    assert [each.returncode for each in (bad, mended)] == [1, 0], (bad, mended)
    assert [each.stdout.splitlines()[-1] for each in (bad, mended)] == ["broken", "holds"]
