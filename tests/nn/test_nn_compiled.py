"""Compiled layers do what eager ones do: in one graph, unless codes are taken from data."""

import copy

import pytest
import torch

from vq_reference.nn import ResidualQuantizer, VectorQuantize
from vq_reference.testing.torch_features import needs

DIM = 6
EVERYTHING = {"heads": 2, "separate_codebooks": True, "codebook_dim": 4, "metric": "cosine", "estimator": "rotation"}


@pytest.fixture(autouse=True)
def fresh():
    torch.manual_seed(0)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def step(call, module):
    """Return what two training steps give, with gradients and state. `aot_eager` compiles all but the kernels."""
    seen = []
    for seed in range(2):
        torch.manual_seed(seed)
        x = torch.randn(3, 5, DIM, requires_grad=True)
        output, indices, loss = call(x, torch.rand(3, 5) > 0.3)
        seen += [output, indices, loss, torch.autograd.grad(output.square().sum() + loss.sum(), x)[0]]
    return [*seen, *module.state_dict().values()]


def assert_alike(module, fullgraph):
    eager = copy.deepcopy(module)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=fullgraph)
    for one, other in zip(step(compiled, module), step(eager, eager), strict=True):
        assert torch.equal(one, other)


@needs("compiled")
@pytest.mark.parametrize("kind", ["ema", "gradient"])
def test_a_layer_is_one_graph_and_gives_what_eager_gives(kind):
    assert_alike(VectorQuantize(DIM, 8, codes_learn_by=kind, **EVERYTHING), fullgraph=True)


# dynamo itself looks at .grad of tensors that live across a break in the graph
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@needs("broken graph")
def test_codes_taken_from_data_break_the_graph_and_give_what_eager_gives():
    assert_alike(VectorQuantize(DIM, 8, initialise_from_data=True, replace_below=1.0, decay=0.5), fullgraph=False)


@needs("compiled")
def test_a_stack_without_dropout_is_one_graph_and_gives_what_eager_gives():
    assert_alike(ResidualQuantizer([VectorQuantize(DIM, 8) for _ in range(2)]), fullgraph=True)
