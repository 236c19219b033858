"""State: all of it is in the state_dict, only training changes it, and nothing else is remembered."""

import copy
import io

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from vq_reference.nn import ResidualQuantizer, VectorQuantize

DIM = 6
STATEFUL = {"decay": 0.5, "replace_below": 1.0, "initialise_from_data": True}
MODULES = {
    "ema": lambda: VectorQuantize(DIM, 8, **STATEFUL),
    "separate": lambda: VectorQuantize(DIM, 8, heads=2, separate_codebooks=True, metric="cosine", **STATEFUL),
    "projected": lambda: VectorQuantize(DIM, 8, codebook_dim=3, **STATEFUL),
    "trained": lambda: VectorQuantize(DIM, 8, codes_learn_by="gradient"),
    "frozen": lambda: VectorQuantize(DIM, 8, codes_learn_by="nothing"),
    "residual": lambda: ResidualQuantizer([VectorQuantize(DIM, 8, **STATEFUL) for _ in range(3)], layer_dropout=True),
}


@pytest.fixture(params=MODULES)
def make(request):
    torch.manual_seed(0)
    return MODULES[request.param]


def tokens():
    return torch.randn(20, DIM)


def trained(module):
    for _ in range(3):
        module(tokens())
    return module


def behaviour(module):
    """Return everything that three training steps and a call in eval give, from one seed."""
    seen = []
    torch.manual_seed(5)
    for _ in range(3):
        seen += module.train()(tokens())
    return [*seen, *module.eval()(tokens()), *module.state_dict().values()]


def same(one, other):
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def state(module):
    return [value.clone() for value in module.state_dict().values()]


def test_a_state_dict_makes_another_module_behave_alike_also_one_that_has_run(make):
    module = trained(make())
    for other in (make(), trained(make())):
        other.eval()(tokens())
        other.load_state_dict(module.state_dict())
        assert same(behaviour(copy.deepcopy(module)), behaviour(other))


@pytest.mark.parametrize("before_any_step", [True, False])
def test_a_copy_and_a_pickle_behave_alike_and_are_apart(make, before_any_step):
    module = make() if before_any_step else trained(make())
    stored = io.BytesIO()
    torch.save(module, stored)
    stored.seek(0)
    copies = [copy.deepcopy(module), torch.load(stored, weights_only=False)]
    untouched = state(module)
    expected = behaviour(copy.deepcopy(module))
    assert all(same(behaviour(other), expected) for other in copies)
    assert same(state(module), untouched)


def test_eval_and_no_grad_change_nothing(make):
    module = make()
    for _ in range(2):  # before the first step, and after some
        before = state(module)
        module.eval()(tokens())
        with torch.no_grad():
            module.train()(tokens())
        assert same(state(module), before)
        trained(module)


def test_eval_does_not_depend_on_earlier_calls(make):
    module, x = trained(make()).eval(), tokens()
    first = module(x)
    module(tokens()[:3])
    assert same(first, module(x))


def test_a_dtype_there_and_back_leaves_the_state_where_it_was(make):
    module = trained(make())
    before = state(module)
    module.double()
    assert all(value.dtype in (torch.float64, torch.bool) for value in module.state_dict().values())
    assert same(state(module.float()), before)


def test_forward_keeps_no_graph(make):
    module = make()
    module(tokens().requires_grad_())
    assert not any(value.requires_grad for name, value in module.named_buffers())
    module.train()(tokens().requires_grad_())[2].sum().backward()


def test_each_call_in_training_is_one_step_however_often_the_gradient_is_taken():
    torch.manual_seed(0)
    module = VectorQuantize(DIM, 1, decay=0.5)
    x = tokens().requires_grad_()
    _, _, loss = module(x)
    once = state(module)
    loss.backward(retain_graph=True)
    loss.backward()
    assert same(state(module), once)
    module(x)
    assert module.codebooks[0].counts == 0.5 * once[1] + 0.5 * 20


# torch 2.4 warns of what its own checkpoint calls
@pytest.mark.filterwarnings("ignore:`torch.cpu.amp.autocast:FutureWarning")
@pytest.mark.parametrize(("reentrant", "steps"), [(True, 1), (False, 2)])
def test_checkpointing_counts_as_declared(reentrant, steps):
    """The reentrant kind runs its first forward under no_grad, which is no step. The other runs two that both count."""
    torch.manual_seed(0)
    module, alone = VectorQuantize(DIM, 1, decay=0.5), VectorQuantize(DIM, 1, decay=0.5)
    x = tokens().requires_grad_()
    output = checkpoint(lambda x: module(x)[0], x, use_reentrant=reentrant)
    output.sum().backward()
    for _ in range(steps):
        alone(x)
    assert torch.equal(module.codebooks[0].counts, alone.codebooks[0].counts)
