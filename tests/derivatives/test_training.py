"""Right programs as people train them: self-distillation, momentum encoders, embeddings with padding, masks."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from vq_reference.testing.derivatives import check_gradient


def tokens() -> Tensor:
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(1))


class MeanTeacher(nn.Module):
    """BYOL (arXiv 2006.07733). In ``cosine_similarity`` norms are clamped in place, where autograd does not see it."""

    def __init__(self) -> None:
        super().__init__()
        self.student = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)

    def forward(self, x):
        with torch.no_grad():
            for slow, fast in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                slow.mul_(0.9).add_(fast, alpha=0.1)
            wanted = self.teacher(x.flip(0))
        return 2 - 2 * functional.cosine_similarity(self.student(x), wanted, dim=-1).mean()


class MomentumEncoder(nn.Module):
    """MoCo (arXiv 1911.05722): a key encoder that is assigned by its data, and a queue that forward writes into."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(3, 2), nn.Linear(3, 2).requires_grad_(False)
        self.register_buffer("queue", functional.normalize(torch.randn(2, 8), dim=0))

    def forward(self, x):
        q = functional.normalize(self.query(x), dim=1)
        with torch.no_grad():
            for fast, slow in zip(self.query.parameters(), self.key.parameters(), strict=True):
                slow.data = slow.data * 0.9 + fast.data * 0.1
            k = functional.normalize(self.key(1.1 * x), dim=1)
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ self.queue.clone().detach()], dim=1)
        with torch.no_grad():
            self.queue[:, : len(k)] = k.t()
        return functional.cross_entropy(logits, torch.zeros(len(x), dtype=torch.long))


IDS = torch.tensor([[0, 1, 4], [1, 1, 2]])
CAUSAL = torch.triu(torch.full((4, 4), -torch.inf), 1)
# module or callable, and its inputs
OTHERS = {
    "a mean teacher": (MeanTeacher, lambda: tokens()),
    "a momentum encoder": (MomentumEncoder, lambda: tokens()),
    "an embedding with padding": (lambda: nn.Embedding(5, 3, padding_idx=1), lambda: IDS),
    "an embedding with sparse gradients": (lambda: nn.Embedding(5, 3, sparse=True), lambda: IDS),
    "a mask of infinities": (lambda: lambda x, mask: (x @ x.t() + mask).softmax(-1) @ x, lambda: (tokens(), CAUSAL)),
}


@pytest.mark.parametrize("full", [False, True], ids=["directions", "jacobian"])
@pytest.mark.parametrize("name", OTHERS)
def test_what_people_train_with_agrees(name, full):
    make, inputs = OTHERS[name]
    torch.manual_seed(0)
    report = check_gradient(make(), inputs(), full=full)
    assert report.agrees, report


def test_the_row_of_padding_is_held_as_a_stop():
    report = check_gradient(nn.Embedding(5, 3, padding_idx=1), IDS)
    assert report.stops == ("embedding",)


def test_an_attention_that_drops_everything_agrees():
    """What is left is a bias of zero: the value says nothing of how far a step away is rounded."""
    module, x = nn.MultiheadAttention(3, 1, dropout=1.0), tokens()[None]
    for seed in range(5):
        report = check_gradient(module, (x, x, x), seed=seed)
        assert report.agrees, report
