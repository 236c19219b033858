"""Processes that train one codebook together: a group that is right, and every way in which one may not come back."""

import dataclasses
import functools
import time

import numpy as np
import pytest
import torch.distributed as dist

from vq_reference.testing.interface.stateful import Averaging, Wanted
from vq_reference.testing.laws import distributed as ranks
from vq_reference.testing.laws.registry import laws
from vq_reference.testing.laws.verdict import Verdict
from vq_reference.testing.run.judge import judge
from vq_reference.testing.run.targets import implementation_of
from vq_reference.vector_quantize import VectorQuantize

LAW = laws()["state.ranks"]
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(not (dist.is_available() and dist.is_gloo_available()), reason="this torch has no gloo backend"),
]
TRAINING = ranks.Training(Wanted(VectorQuantize(np.eye(2)[None]), Averaging()), [(np.eye(2), np.eye(2))])
OWN = """
import torch, torch.distributed as dist
from torch import nn
from vq_reference.testing.adapters.declare.moving_average import MovingAverage
from vq_reference.testing.adapters.declare.torch_quantizer import torch_quantizer

class Own(nn.Module):
    def __init__(self, dim, size, weight):
        super().__init__()
        self.register_buffer("embed", torch.randn(size, dim))
        self.register_buffer("sums", self.embed.clone())
        self.register_buffer("counts", torch.ones(size))
        self.decay, self.weight = 0.9, weight

    def forward(self, x):
        indices = (x[..., None, :] - self.embed).square().sum(-1).argmin(-1)
        q, loss = self.embed[indices], self.weight * (x - self.embed[indices]).square().mean()
        if self.training and torch.is_grad_enabled():
            with torch.no_grad():
                one_hot = nn.functional.one_hot(indices, len(self.embed)).float().flatten(0, -2)
                n, s = one_hot.sum(0), one_hot.T @ x.flatten(0, -2)
                if dist.is_initialized():
                    SHARE
                self.counts.lerp_(n, 1 - self.decay)
                self.sums.lerp_(s, 1 - self.decay)
                self.embed.copy_(self.sums / self.counts[:, None])
        return q.detach() - (x.detach() - x), indices, loss

def adapter():
    return torch_quantizer(
        lambda wanted: Own(wanted.dim, wanted.codebook_size, wanted.commitment_weight),
        "embed", loss_weights=lambda wanted: (0.0, wanted.commitment_weight), freeze=lambda module: None,
        average=MovingAverage("counts", "sums", "decay", ranks=True))
"""


@pytest.mark.parametrize(
    ("target", "law"),
    [
        ("reference.VectorQuantize[ranks]", "state.ranks"),
        ("reference.VectorQuantize[ranks]", "state.ranks_equal_one"),
        ("lucidrains.VectorQuantize[ranks]", "state.ranks_equal_one"),
    ],
)
def test_a_codebook_that_ranks_share_keeps_the_law(target, law):
    outcome, _ = judge(laws()[law], implementation_of(target), "quick", None)
    assert outcome.verdict is Verdict.HELD, outcome.message
    assert outcome.seconds < ranks.LIMIT


def test_a_module_of_ones_own_is_made_anew_in_each_process(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_ranks.py").write_text(OWN.replace("SHARE", "dist.all_reduce(n); dist.all_reduce(s)"), "utf-8")
    outcome, _ = judge(LAW, implementation_of(f"{tmp_path}/own_ranks.py:adapter"), "quick", None)
    assert outcome.verdict is Verdict.HELD, outcome.message


def test_of_processes_of_which_one_dies_none_is_left_waiting(tmp_path, monkeypatch):
    """Other faulty ones are in `test_scripts_of_ranks`."""
    monkeypatch.syspath_prepend(tmp_path)
    share = "dist.get_rank() or __import__('os')._exit(3)"
    (tmp_path / "own_ranks.py").write_text(OWN.replace("SHARE", share), "utf-8")
    with pytest.raises(RuntimeError, match="ended with exit code 3"):
        ranks.together(functools.partial(implementation_of, f"{tmp_path}/own_ranks.py:adapter"), [TRAINING])


def _stay(*given):
    time.sleep(600)


def test_processes_that_wait_for_ever_are_ended_in_time(monkeypatch):
    monkeypatch.setattr(ranks, "LIMIT", 1.0)
    monkeypatch.setattr(ranks, "take_part", _stay)
    with pytest.raises(AssertionError, match="2 processes do not end within 1 s"):
        ranks.together(functools.partial(implementation_of, "reference.oracle"), [TRAINING])


def test_what_only_this_process_can_make_is_not_applicable():
    made = implementation_of("reference.VectorQuantize[ranks]")
    here = dataclasses.replace(made, lasting=dataclasses.replace(made.lasting, again=None))
    outcome, _ = judge(LAW, here, "quick", None)
    assert outcome.verdict is Verdict.NOT_APPLICABLE
    assert "give it as a target" in outcome.message
