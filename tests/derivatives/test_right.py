"""Programs that are right, in unusual ways: the check must say so of every one of them."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from einops import rearrange
from einx import get_at
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from vq_reference.testing.derivatives import check_gradient

DIM, CODES, TOKENS = 3, 5, 4


def tokens(seed: int = 1) -> Tensor:
    return torch.randn(TOKENS, DIM, generator=torch.Generator().manual_seed(seed))


def nearest(x: Tensor, codes: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cdist(x, codes).argmin(dim=-1)


class Quantizer(nn.Module):
    """A SimVQ without an estimator: what each program below builds upon."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.register_buffer("frozen", torch.randn(CODES, DIM, generator=generator))
        self.transform = nn.Linear(DIM, DIM, bias=False)
        self.transform.weight.data = torch.randn(DIM, DIM, generator=generator)

    def code(self, x: Tensor) -> Tensor:
        codes = self.transform(self.frozen)
        return codes[nearest(x, codes)]


class Program(Quantizer):
    def __init__(self, run) -> None:
        super().__init__()
        self.run = run

    def forward(self, x: Tensor):
        return self.run(self, x)


def straight_through(m, x):
    return x + (m.code(x) - x).detach()


def bracketed_straight_through(m, x):
    q = m.code(x)
    return q.detach() + (x - x.detach())


def by_the_data_attribute(m, x):
    return x + (m.code(x) - x).data


def detached_in_place(m, x):
    step = m.code(x) - x
    step.detach_()
    return x + step


def where_only_some_tokens_are_quantized(m, x):
    return torch.where((x.norm(dim=-1) > 1)[:, None], straight_through(m, x), x)


def commitment_loss(m, x):
    q = m.code(x)
    return functional.mse_loss(q, x.detach()) + 0.25 * functional.mse_loss(x, q.detach())


def codebook_half_only(m, x):
    return functional.mse_loss(m.code(x), x.detach())


def rotation(m, x):
    q = m.code(x)
    xn, qn = functional.normalize(x, dim=-1).detach(), functional.normalize(q, dim=-1).detach()
    w = functional.normalize(xn + qn, dim=-1)
    turned = x - 2 * (x * w).sum(-1, keepdim=True) * w + 2 * (x * xn).sum(-1, keepdim=True) * qn
    return turned * (q.norm(dim=-1, keepdim=True) / x.norm(dim=-1, keepdim=True)).detach()


def gumbel_straight_through(m, x):
    return functional.gumbel_softmax(x @ m.transform(m.frozen).t(), hard=True) @ m.frozen


def finite_scalar_quantization(m, x):
    bounded = 2 * torch.tanh(m.transform(x))
    return bounded + (bounded.round() - bounded).detach()


def lookup_free_sign(m, x):
    return x + (torch.sign(x) - x).detach()


def rounding_without_an_estimator(m, x):
    return x.round() * m.transform(x)


def one_hot_lookup(m, x):
    codes = m.transform(m.frozen)
    return functional.one_hot(nearest(x, codes), CODES).to(x.dtype) @ codes


def embedding_and_gather(m, x):
    codes = m.transform(m.frozen)
    indices = nearest(x, codes)
    return functional.embedding(indices, codes) * codes.gather(0, indices[:, None].expand(-1, DIM))


def indexing_by_a_comparison(m, x):
    y = m.transform(x)
    return y[x > 0] * (x > 0.5).sum() + torch.sort(y.flatten()).values[: int((x > 0).sum())]


def choice_by_sort(m, x):
    codes = m.transform(m.frozen)
    order = (x[:, None] - codes).square().sum(-1).sort(dim=-1).indices
    return codes[order[:, 0]] + codes[order[:, 1]]


def weighted_top_two(m, x):
    codes = m.transform(m.frozen)
    best = (x @ codes.t()).topk(2)
    return (best.values.softmax(-1)[..., None] * codes[best.indices]).sum(1)


def largest_feature(m, x):
    return x.max(dim=-1).values * m.transform(x).amax(dim=-1)


def scale_by_a_python_number(m, x):
    return m.transform(x) / x.norm().item()


def scale_by_a_python_list(m, x):
    return m.transform(x) * torch.tensor(x.abs().sum(-1).tolist())[:, None]


def choice_made_in_numpy(m, x):
    codes = m.transform(m.frozen)
    far = np.linalg.norm(x.detach().numpy()[:, None] - codes.detach().numpy(), axis=-1)
    return x + (codes[torch.from_numpy(far.argmin(-1))] - x).detach()


def branch_on_a_value(m, x):
    return straight_through(m, x) if x.sum() > 0 else m.transform(x)


def inference_mode_choice(m, x):
    codes = m.transform(m.frozen)
    with torch.inference_mode():
        indices = torch.cdist(x, codes).argmin(-1)
    return codes[indices.clone()]


def residual_quantization(m, x):
    out, rest = torch.zeros_like(x), x
    for _ in range(3):
        q = straight_through(m, rest)
        rest = rest - q.detach()
        out += q
    return out


def changed_in_place(m, x):
    y = m.transform(x)
    y[:, 0] = 0
    y[1] += x[1].detach()
    return y.mul_(2).relu_()


def noise_before_the_choice(m, x):
    noisy = x + 0.1 * torch.randn_like(x)
    return functional.dropout(straight_through(m, noisy), 0.5)


def gradient_penalty(m, x):
    y = m.transform(x).exp().sum()
    (g,) = torch.autograd.grad(y, x, create_graph=True)
    return g.square().sum()


def strided_stop(m, x):
    return m.transform(x) * m.transform(x)[:, ::2].detach().contiguous().sum() + x.t().detach().reshape(x.shape)


def complex_rotation(m, x):
    return m.transform(x)[:, :2].contiguous() * 1j + x[:, :2].exp()


def reentrant_checkpoint(m, x):
    return checkpoint(lambda t: functional.dropout(straight_through(m, t).tanh(), 0.5), x, use_reentrant=True)


def checkpoint_without_reentry(m, x):
    return checkpoint(lambda t: functional.dropout(m.code(t).tanh() * t, 0.5), x, use_reentrant=False)


def input_changed_in_place(m, x):
    x *= 2
    return m.transform(x)


PROGRAMS = [
    straight_through, bracketed_straight_through, by_the_data_attribute, detached_in_place,
    where_only_some_tokens_are_quantized, commitment_loss, codebook_half_only, rotation, gumbel_straight_through,
    finite_scalar_quantization, lookup_free_sign, rounding_without_an_estimator, one_hot_lookup,
    embedding_and_gather, indexing_by_a_comparison, choice_by_sort, weighted_top_two, largest_feature,
    scale_by_a_python_number, scale_by_a_python_list, choice_made_in_numpy, branch_on_a_value,
    inference_mode_choice, residual_quantization, changed_in_place, noise_before_the_choice, gradient_penalty,
    strided_stop, complex_rotation, reentrant_checkpoint, checkpoint_without_reentry, input_changed_in_place,
]  # fmt: skip


@pytest.mark.parametrize("full", [False, True], ids=["directions", "jacobian"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_right_program_agrees(program, full):
    report = check_gradient(Program(program), tokens(), full=full)
    assert report.agrees, report


def test_an_ema_codebook_that_forward_updates_agrees_and_is_not_updated():
    class Ema(Quantizer):
        def forward(self, x):
            q = self.frozen[nearest(x, self.frozen)]
            with torch.no_grad():
                hits = functional.one_hot(nearest(x, self.frozen), CODES).to(x.dtype)
                self.frozen.data.lerp_(hits.t() @ x / hits.sum(0)[:, None].clamp(min=1), 0.2)
            return x + (q - x).detach() * self.frozen.norm(), functional.mse_loss(x, q)

    module = Ema()
    before = module.frozen.clone()
    assert check_gradient(module, tokens()).agrees
    assert torch.equal(module.frozen, before)


def test_a_codebook_initialized_from_the_first_batch_through_data_agrees():
    class FirstBatch(Quantizer):
        def forward(self, x):
            self.frozen.data.copy_(self.transform(x)[torch.arange(CODES) % TOKENS])
            return x + (self.code(x) - x).detach()

    assert check_gradient(FirstBatch(), tokens()).agrees


def test_tied_projections_agree():
    class Tied(Quantizer):
        def __init__(self):
            super().__init__()
            self.decoder = nn.Linear(DIM, DIM)
            self.decoder.weight = self.transform.weight

        def forward(self, x):
            return self.decoder(straight_through(self, x))

    assert check_gradient(Tied(), tokens(), full=True).agrees


def test_einops_and_einx_agree():
    def program(m, x):
        codes = m.transform(m.frozen)
        q = get_at("[c] d, n -> n d", codes, nearest(x, codes))
        q = rearrange(q, "(a b) d -> a d b", a=2)
        return rearrange(q, "a d b -> (a b) d") * x.detach() + x

    assert check_gradient(Program(program), tokens()).agrees


def test_a_student_that_is_taught_by_a_frozen_copy_of_itself_agrees():
    student = nn.Sequential(nn.Linear(DIM, 8), nn.GELU(), nn.Linear(8, CODES))
    teacher = copy.deepcopy(student)

    def distill(x):
        with torch.no_grad():
            for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
                target = (slow * 0.9 + fast * 0.1).sum()
            wanted = teacher(x).softmax(-1)
        return functional.cross_entropy(student(x), wanted) + 0 * target

    report = check_gradient(distill, tokens(), wrt=["student.0.weight", "student.2.bias", "inputs[0]"])
    assert report.agrees, report


@pytest.mark.parametrize(
    "module",
    [
        nn.BatchNorm1d(DIM),
        nn.utils.parametrizations.spectral_norm(nn.Linear(DIM, DIM)),
        nn.GRU(DIM, DIM, batch_first=True),
        nn.MultiheadAttention(DIM, 1, dropout=0.5),
        nn.TransformerEncoderLayer(DIM, 1, 8),
    ],
    ids=lambda module: type(module).__name__,
)
def test_torchs_own_modules_agree_in_training(module):
    x = tokens()[None]
    inputs = (x, x, x) if isinstance(module, nn.MultiheadAttention) else x[0] if "Batch" in str(module) else x
    report = check_gradient(module.train(), inputs)
    assert report.agrees, report


def test_a_backward_hook_that_only_looks_agrees():
    module, seen = Program(lambda m, x: m.transform(x).exp()), []
    module.transform.register_full_backward_hook(lambda module, inputs, outputs: seen.append(outputs))
    assert check_gradient(module, tokens()).agrees
    assert seen


def test_outputs_in_dicts_and_dataclasses_are_found_and_named():
    @dataclass
    class Found:
        quantized: Tensor
        losses: dict

    def program(m, x):
        return Found(straight_through(m, x), {"commit": commitment_loss(m, x), "weight": 0.25})

    report = check_gradient(Program(program), tokens(), directions=1)
    assert report.agrees
    assert [c.of for c in report.comparisons] == [
        "output.quantized along direction 1",
        "output.losses['commit'] along direction 1",
    ]


def test_a_cast_to_float32_on_the_way_is_answered_in_float32():
    report = check_gradient(Program(lambda m, x: m.transform(x).float().exp()), tokens())
    assert report.agrees, report
    assert report.notes == ("a gradient passes torch.float32: the errors are that dtype's",)
    fine = check_gradient(Program(lambda m, x: m.transform(x).exp()), tokens())
    assert min(c.error for c in report.comparisons) > max(c.error for c in fine.comparisons)


def test_a_cast_to_float32_that_only_a_choice_depends_on_costs_nothing():
    def program(m, x):
        codes = m.transform(m.frozen)
        return codes[(x.float()[:, None] - codes.float()).square().sum(-1).argmin(-1)]

    def uncast(m, x):
        codes = m.transform(m.frozen)
        return codes[(x[:, None] - codes).square().sum(-1).argmin(-1)]

    cast, not_cast = (check_gradient(Program(run), tokens(), directions=1) for run in (program, uncast))
    assert cast.agrees
    # two more operations, the casts, in the bound
    assert cast.comparisons[0].error < 2 * not_cast.comparisons[0].error
