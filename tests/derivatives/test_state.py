"""A check leaves nothing behind: not in the module, not in the inputs, not in a random number generator."""

from __future__ import annotations

import functools
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from vq_reference.testing.derivatives import check_gradient
from vq_reference.testing.derivatives.subject import Program

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))


class Untidy(nn.Module):
    """Changes everything that a forward can change."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(3, 3), nn.BatchNorm1d(3)
        self.twin = self.layer
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.register_buffer("mean", torch.zeros(3))
        self.generator = torch.Generator().manual_seed(5)
        self.scale = torch.ones(3)
        self.history = {"means": [torch.zeros(3)]}
        self.calls = 0

    def forward(self, x, fail=False):
        self.calls += 1
        self.count += 1
        self.mean = self.mean * 0.9 + 0.1 * x.mean(0).detach()
        self.scale.mul_(1.5)
        self.history["means"][0].add_(x.mean(0).detach())
        self.history["means"].append(self.mean)
        self.cache = x
        noise = torch.rand(3, generator=self.generator) + random.random() + np.random.rand()  # noqa: NPY002
        y = functional.dropout(self.norm(self.twin(x)) * self.scale + noise, 0.5)
        if fail:
            raise KeyError("on purpose")
        return y * self.count + self.history["means"][0]


def squared(x: torch.Tensor) -> torch.Tensor:
    return x * x.detach() + x.round()


def everything(module):
    tensors = {id(t): (t, t.detach().clone(), t._version) for t in (*module.parameters(), *module.buffers())}
    attributes = {name: dict(vars(m)) for name, m in module.named_modules()}
    draws = torch.get_rng_state(), module.generator.get_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    return tensors, attributes, draws


def assert_unchanged(module, before):
    tensors, attributes, draws = before
    now = everything(module)
    assert now[0].keys() == tensors.keys()
    for tensor, value, version in tensors.values():
        assert torch.equal(tensor, value)
        assert tensor._version == version
        assert tensor.grad is None
    assert now[1] == attributes
    assert torch.equal(now[2][0], draws[0])
    assert torch.equal(now[2][1], draws[1])
    assert now[2][2] == draws[2]
    assert np.array_equal(now[2][3], draws[3])


@pytest.mark.parametrize("full", [False, True], ids=["directions", "jacobian"])
def test_a_check_changes_nothing(full):
    module, x = Untidy(), X.clone()
    before, scale = everything(module), module.scale.clone()
    report = check_gradient(module, x, full=full)
    assert report.agrees, report
    assert_unchanged(module, before)
    assert torch.equal(module.scale, scale)
    assert len(module.history["means"]) == 1
    assert not module.history["means"][0].any()
    assert torch.equal(x, X)
    assert torch.get_default_dtype() is torch.float32


def test_a_program_that_fails_is_put_back_as_well():
    module = Untidy()
    before = everything(module)
    with pytest.raises(KeyError, match="on purpose"):
        check_gradient(module, X, kwargs={"fail": True})
    assert_unchanged(module, before)


def test_gradients_and_hooks_of_the_users_own_stay():
    module = nn.Linear(3, 3)
    module(X).sum().backward()
    grads = [p.grad.clone() for p in module.parameters()]
    calls = []
    module.weight.register_hook(lambda g: calls.append(g.dtype))
    assert check_gradient(module, X).agrees
    assert all(torch.equal(p.grad, g) for p, g in zip(module.parameters(), grads, strict=True))
    assert set(calls) == {torch.float64}
    calls.clear()
    module(X).sum().backward()
    assert calls == [torch.float32]


def test_it_works_where_gradients_are_switched_off():
    with torch.no_grad():
        assert check_gradient(nn.Linear(3, 3), X).agrees
        assert not torch.is_grad_enabled()


def test_a_recurrent_module_keeps_its_own_list_of_weights():
    module = nn.LSTM(3, 3)
    before = [id(w) for w in module._flat_weights]
    assert check_gradient(module, X[:, None]).agrees
    assert [id(w) for w in module._flat_weights] == before


def test_a_shared_parameter_is_one_tensor_and_a_repeated_input_too():
    module = Untidy()
    assert [name for name in Program(module, X, {}, None).origin if "layer" in name or "twin" in name] == [
        "layer.weight",
        "layer.bias",
    ]
    for full in (False, True):
        report = check_gradient(torch.mul, (X, X), full=full)
        assert report.agrees, report
        assert report.unreached == ()


def test_what_to_differentiate_by_may_be_named_or_given():
    module = nn.Linear(3, 3)
    for wrt in (["weight", "inputs[0]"], [module.weight, X]):
        assert list(Program(module, X, {}, wrt).origin) == ["weight", "inputs[0]"]
    assert list(Program(lambda x, bias: module(x) + bias["b"], X, {"bias": {"b": X.clone()}}, None).origin) == [
        "inputs[0]",
        "kwargs['bias']['b']",
        "module.weight",
        "module.bias",
    ]


def test_modules_are_found_behind_methods_partials_and_objects():
    layer = nn.Linear(3, 3)

    class Holder:
        def __init__(self):
            self.layer = layer

        def __call__(self, x):
            return self.layer(x)

    for function in (layer.forward, functools.partial(lambda m, x: m(x), layer), Holder()):
        names = list(Program(function, X, {}, None).origin)
        assert len(names) == 3, names
        assert check_gradient(function, X).agrees


@pytest.mark.parametrize(
    ("arguments", "error", "names"),
    [
        ({"function": 3}, TypeError, "function is a int"),
        ({"wrt": ["wait"]}, ValueError, r"wrt\[0\] is 'wait', and is none of inputs\[0\], weight, bias"),
        ({"wrt": [torch.ones(2)]}, ValueError, r"wrt\[0\] is a tensor of shape \(2,\)"),
        ({"wrt": []}, ValueError, "nothing to differentiate by"),
        ({"directions": 0}, ValueError, "directions is 0"),
        ({"dtype": torch.float16}, ValueError, "dtype is torch.float16: expected torch.float64 or torch.float32"),
        ({"inputs": (X, torch.arange(3)), "wrt": ["inputs[1]"]}, TypeError, r"inputs\[1\], is torch.int64"),
    ],
)
def test_arguments_that_make_no_sense_are_named(arguments, error, names):
    with pytest.raises(error, match=names):
        check_gradient(**{"function": nn.Linear(3, 3), "inputs": X, **arguments})


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_scripted_program_is_named():
    with pytest.raises(TypeError, match="is a ScriptModule"):
        check_gradient(torch.jit.script(nn.Linear(3, 3)), X)
    scripted = torch.jit.script(squared)
    with pytest.raises(TypeError, match="scripted is a ScriptFunction"):
        check_gradient(lambda x: scripted(x), X)
    scripts = [scripted]
    with pytest.raises(TypeError, match=r"scripts\.0 is a ScriptFunction"):
        check_gradient(lambda x: scripts[0](x), X)
    hidden = SimpleNamespace(inner=SimpleNamespace(run=scripted))
    for _ in range(2):  # TorchScript looks at a function twice before it takes its gradient over
        scripted(X.double().requires_grad_())
    assert "torch::jit::" in check_gradient(lambda x: hidden.inner.run(x), X).reason


@pytest.mark.parametrize("kept", [False, True], ids=["none kept", "one kept"])
def test_a_normal_number_that_numpy_has_kept_is_handed_out_again(kept):
    """NumPy draws two of them at once: the second one moves nothing but that it is gone."""
    np.random.seed(0)  # noqa: NPY002
    if kept:
        np.random.standard_normal()  # noqa: NPY002
    before = np.random.get_state()  # noqa: NPY002
    assert before[3] == kept
    assert check_gradient(lambda x: x * float(np.random.standard_normal()), X).agrees  # noqa: NPY002
    after = np.random.get_state()  # noqa: NPY002
    assert before[2:] == after[2:]
    assert np.array_equal(before[1], after[1])


def test_a_global_generator_of_numpys_of_another_kind_is_put_back():
    usual = np.random.get_bit_generator()
    np.random.set_bit_generator(np.random.PCG64(0))
    try:
        before = np.random.get_bit_generator().state
        assert check_gradient(lambda x: x * np.random.random_sample(), X).agrees  # noqa: NPY002
        assert np.random.get_bit_generator().state == before
    finally:
        np.random.set_bit_generator(usual)


class Rebinds(nn.Module):
    """Puts another dict in the place of its own."""

    def __init__(self):
        super().__init__()
        self.linear, self.calls = nn.Linear(3, 3), 0

    def forward(self, x):
        self.__dict__ = dict(self.__dict__)
        self.calls += 1
        return self.linear(x) * self.calls


def test_a_module_that_rebinds_its_dict_is_put_back():
    module = Rebinds()
    before = vars(module)
    assert check_gradient(module, X).agrees
    assert vars(module) is before
    assert module.calls == 0
