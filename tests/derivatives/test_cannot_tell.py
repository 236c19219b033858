"""What cannot be followed or decided is said, by name: never a silent pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import Function

from vq_reference.testing.derivatives import Agreement, check_gradient
from vq_reference.testing.torch_features import needs

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))


class RoundStraightThrough(Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, g):
        return g


captured = RoundStraightThrough.apply


def declared_round(x: Tensor) -> Tensor:
    return x + (x.round() - x).detach()


def reason(function, inputs=X, **kwargs) -> str:
    report = check_gradient(function, inputs, **kwargs)
    assert report.verdict is Agreement.CANNOT_TELL, report
    return report.reason


def test_a_custom_function_is_named():
    assert reason(lambda x: RoundStraightThrough.apply(x)) == (
        "custom autograd.Function RoundStraightThrough cannot be followed"
    )


def test_a_custom_function_whose_apply_was_taken_before_is_named_though_declared():
    declared = {RoundStraightThrough: declared_round}
    assert "RoundStraightThrough" in reason(lambda x: captured(x), declared=declared)
    assert check_gradient(lambda x: RoundStraightThrough.apply(x), X, declared=declared).agrees


def test_a_custom_function_that_no_gradient_in_question_passes_does_not_matter():
    def program(x, y):
        return x.exp() + RoundStraightThrough.apply(y)

    assert check_gradient(program, (X, X + 1), wrt=["inputs[0]"]).agrees
    assert "RoundStraightThrough" in reason(program, (X, X + 1))


@pytest.mark.parametrize(
    "kink",
    [torch.relu, torch.abs, lambda x: x.clamp(min=0), lambda x: torch.maximum(x, -x)],
    ids=["relu", "abs", "clamp", "maximum"],
)
def test_a_kink_at_the_point_is_named(kink):
    at_the_kink = X.clone()
    at_the_kink[2, 1] = 0
    assert "a kink within the step" in reason(lambda x: kink(x), at_the_kink)
    assert check_gradient(lambda x: kink(x), X).agrees


@pytest.mark.parametrize("seed", range(20))
def test_many_kinks_in_one_point_never_differ(seed):
    """A token of zeros, as padding is, before a ReLU: from side to side of one direction the slopes may be the same."""
    layer = nn.Linear(3, 12, bias=False)
    assert "a kink within the step" in reason(lambda x: layer(x).relu(), torch.zeros(1, 3), seed=seed)


def test_a_kink_near_the_point_is_stepped_around():
    near = X.clone()
    near[2, 1] = 1e-7
    assert check_gradient(lambda x: x.relu(), near).agrees


def test_an_index_that_would_change_is_named():
    tied = torch.tensor([[1.0, 1.0, 0.0]])
    assert reason(lambda x: x.max(dim=-1).values, tied).startswith("an index of aten.max.dim would change")


def test_an_index_that_is_only_a_choice_may_change():
    codes = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    between = torch.tensor([[0.5, 0.3]])
    report = check_gradient(lambda x: x * codes[torch.cdist(x, codes.to(x)).argmin(-1)].to(x) + x, between)
    assert report.agrees, report


def write_in_no_grad(x):
    y = x * 2
    with torch.no_grad():
        y.clamp_(-1, 1)
    return y


def write_into_a_detached_alias(x):
    y = x * 2
    y.detach().clamp_(-1, 1)
    return y


def write_through_data(x):
    y = x * 2
    y.data.clamp_(-1, 1)
    return y


def assign_data(x):
    y = x * 2
    y.data = y.data.clamp(-1, 1)
    return y


def write_after_a_detached_alias(x):
    y = x * 2
    stopped = y.detach()
    y += 1
    return y * stopped


def live_by_its_second_name(x):
    buffer = torch.zeros_like(x).detach()
    second = buffer.detach()
    second.copy_(x)
    return second * 2 + buffer


@pytest.mark.parametrize(
    ("program", "names"),
    [
        (write_in_no_grad, "aten.clamp_.default changes a tensor in place that carries a gradient"),
        (write_into_a_detached_alias, "aten.clamp_.default writes in place into memory"),
        (write_through_data, "aten.clamp_.default writes in place into memory"),
        (assign_data, "Tensor.data is assigned"),
        (write_after_a_detached_alias, "aten.add_.Tensor writes in place into memory"),
        (live_by_its_second_name, "by the second name"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_change_in_place_that_autograd_does_not_see_is_named(program, names):
    assert names in reason(program)


def test_an_operation_with_a_derivative_of_its_own_is_named():
    assert "fake_quantize" in reason(lambda x: torch.fake_quantize_per_tensor_affine(x.float(), 0.1, 0, -8, 7))


def test_an_embedding_whose_gradient_is_scaled_is_named():
    module = nn.Embedding(3, 2, scale_grad_by_freq=True)
    assert "embedding.default has a derivative of its own" in reason(module, torch.tensor([0, 2, 2]))


def test_a_functional_transform_is_named():
    assert "torch.func" in reason(lambda x: torch.func.vmap(lambda row: row.detach() * row)(x))


def test_a_program_that_never_answers_twice_the_same_is_named():
    calls = []

    def program(x):
        calls.append(None)
        return x * len(calls)

    assert "two runs at the same point differ" in reason(program)


def test_a_program_that_does_something_else_in_another_run_is_named():
    calls = []

    def program(x):
        calls.append(None)
        return x.exp() if len(calls) < 4 else x.sin()

    assert (
        reason(program) == "beside the point the program does something else: operation 0 is aten.sin.default, "
        "and was aten.exp.default"
    )


def test_a_program_that_stops_early_or_goes_on_in_another_run_is_named():
    for before, after, names in (
        (lambda x: x.exp() + 1, lambda x: x.exp(), "it ended before aten.add.Tensor"),
        (lambda x: x.exp(), lambda x: x.exp() + 1, "it goes on with aten.add.Tensor"),
    ):
        calls = []

        def program(x, before=before, after=after, calls=calls):
            calls.append(None)
            return before(x) if len(calls) < 4 else after(x)

        assert names in reason(program)


def test_outputs_without_a_gradient_are_named():
    assert reason(lambda x: (x.detach(), x.argmin())) == "no output carries a gradient to inputs[0]"


def test_values_that_are_not_finite_are_named():
    assert reason(lambda x: x / 0) == "the values at or near the point are not finite"


def test_a_value_that_hides_its_derivative_is_named():
    assert "rounding hides the derivative" in reason(lambda x: x + 1e15)


class Compiled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.compile(nn.Linear(3, 3), backend="eager")

    def forward(self, x):
        y = self.inner(x)
        return x + (y - x).detach() + y


def tampered(x):
    y = x.exp()
    y.register_hook(lambda g: 2 * g)
    return y


@needs("compiler")
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own doings
def test_a_compiled_program_is_checked_in_its_eager_original_and_the_report_says_so():
    inside, outside = Compiled(), torch.compile(nn.Linear(3, 3), backend="eager")
    for program in (inside, outside, lambda x: outside(x)):
        report = check_gradient(program, X)
        assert report.agrees, report
        assert report.notes == ("compiled: what was checked is the eager original",)
        assert not any("_orig_mod" in comparison.of for comparison in report.comparisons)
    assert check_gradient(torch.compile(tampered, backend="eager"), X).verdict is Agreement.DIFFERS
    assert torch.equal(outside(X), outside._orig_mod(X))
    assert type(inside.inner).__name__ == "OptimizedModule"
