"""Descriptions: what is measured is so, the printed adapter runs, and what cannot be found out is said."""

import sys

import pytest
import torch
from torch import nn

from vq_reference.nn import SimVQ
from vq_reference.testing.describe.adapter_check import contradictions
from vq_reference.testing.describe.describe import CannotDescribe, describe
from vq_reference.testing.run.targets import object_of

EXPECTED = {
    "tuple_channel_last.py:Quantizer": {
        "layout of x": "... D (works: B T D, B H W D, N D)",
        "loss weights": "codebook half 1.0, encoder half wanted.beta",
        "estimator in training": "straight_through", "metric": "euclidean", "eval": "as training",
    },
    "image_flat_indices.py:ImageQuantizer": {
        "layout of x": "B D H W (works: B D H W)", "codebook": "embed.T, (D, K)", "indices": "(2, 1), layout (B H W)",
        "loss": "1, a mean over tokens",
    },
    "projections_cosine.py:CodecQuantizer": {
        "codebook": "BetweenProjections", "output": "'z_q', layout B D T", "indices": "'codes', layout B T",
        "metric": "cosine",
    },
    "moving_average.py:MovingAverageQuantizer": {
        "loss weights": "codebook half 0.0, encoder half wanted.beta", "estimator in eval": "none",
        "eval": "loss 0.0",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def examples(pytestconfig):
    return pytestconfig.rootpath / "examples"


@pytest.mark.parametrize("name", [name for name in EXPECTED if "moving" not in name])
def test_a_description_says_what_is_so_and_its_adapter_contradicts_nothing(name, examples):
    description = describe(object_of(f"{examples}/{name}"))
    for what, how in EXPECTED[name].items():
        assert description.facts[what].startswith(how), what
    names: dict = {}
    exec(description.adapter(), names)
    assert contradictions(names["adapter"]()) == []


def test_codes_that_nothing_is_known_to_freeze_are_named(examples):
    with pytest.raises(CannotDescribe, match=r"its codes change in training, .*, average=Mov"):
        describe(object_of(f"{examples}/moving_average.py:MovingAverageQuantizer"))


def test_an_instance_is_described_as_its_class_is():
    module = SimVQ(dim=6, codebook_size=9)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    description = describe(module)
    assert description.facts["loss weights"].startswith("codebook half 1.0, encoder half 0.25")
    assert description.facts["estimator in training"] == "rotation"
    assert contradictions(description.implementation()) == []
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in before.items())


class Faulty(SimVQ):
    """SimVQ with one thing that is otherwise than usual."""

    def __init__(self, dim, codebook_size, fault=None):
        super().__init__(dim, codebook_size, rotation_trick=False)
        self.fault = fault

    def forward(self, x):
        output, indices, loss = super().forward(x)
        if self.fault == "sum":
            return output, indices, loss * x.numel()
        if self.fault == "sum over D":
            return output, indices, loss * x.shape[-1]
        if self.fault == "no estimator":
            return self.codebook[indices], indices, loss
        if self.fault == "no indices":
            return output, None, loss
        return output, indices, (x - self.codebook[indices]).square().mean()


@pytest.mark.parametrize(
    ("fault", "what", "how"),
    [
        ("sum", "loss", "2, a sum over all entries"),
        ("sum over D", "loss weights", "codebook half 1.0 * wanted.codebook.shape[1], encoder half 0.25"),
        ("no estimator", "estimator in training", "none"),
        ("no indices", "indices", "not found"),
        ("one mean square", "loss weights", "codebook half 1.0, encoder half 1.0, value 1.0"),
    ],
)
def test_an_unusual_convention_is_measured(fault, what, how):
    class Target(Faulty):
        def __init__(self, dim, codebook_size):
            super().__init__(dim, codebook_size, fault)

    description = describe(Target)
    assert description.facts[what].replace("1.0 * wanted", "wanted").startswith(how.replace("1.0 * wanted", "wanted"))
    assert contradictions(description.implementation()) == []


def test_what_could_not_be_found_out_is_said():
    class Silent(Faulty):
        def __init__(self, dim, codebook_size):
            super().__init__(dim, codebook_size, "no indices")

    assert any(line.startswith("the indices") for line in describe(Silent).unknown)


def test_a_constructor_that_cannot_be_guessed_names_the_argument():
    class Strange(nn.Module):
        def __init__(self, dim, codebook_size, colour):
            super().__init__()

    class Stranger(nn.Module):
        def __init__(self, dim):
            super().__init__()

    with pytest.raises(CannotDescribe, match="needs colour"):
        describe(Strange)
    with pytest.raises(CannotDescribe, match="number of codes K"):
        describe(Stranger)


def test_a_residual_stack_is_described_with_one_layer_and_says_how_it_is_declared(examples):
    stack = object_of(f"{examples}/residual_stack.py:ResidualQuantizer")
    description = describe(stack)
    assert "layers=1" in description.make
    assert ["stack=True" in note for note in description.notes] == [True]
    with pytest.raises(CannotDescribe, match=r"no buffer is one codebook .* stack=True"):
        describe(stack(dim=4, codebook_size=8, layers=3))


class Drifting(nn.Module):
    """Its codes follow every token in training."""

    def __init__(self, dim, codebook_size):
        super().__init__()
        self.register_buffer("embed", torch.randn(codebook_size, dim))

    def forward(self, x):
        indices = (x[..., None, :] - self.embed).square().sum(dim=-1).argmin(dim=-1)
        q = self.embed[indices]
        if self.training:
            self.embed.lerp_(x.detach().mean(dim=tuple(range(x.ndim - 1))), 0.5)
        return x + (q - x).detach(), indices, (x - q).square().mean()


class Listed(nn.Module):
    """A layer at a path with a number in it."""

    def __init__(self, dim, codebook_size):
        super().__init__()
        self.layers = nn.ModuleList([Drifting(dim, codebook_size)])

    def forward(self, x):
        return self.layers[0](x)


def test_codes_behind_a_number_are_frozen_where_they_lie():
    description = describe(Listed)
    assert description.facts["codes in training"].endswith("frozen by eval mode of layers.0")
    assert contradictions(description.implementation()) == []


@pytest.mark.parametrize("default", [None, 0, (1,)])
def test_a_default_that_is_no_number_of_several_stays(default):
    class Codec(SimVQ):
        def __init__(self, dim, codebook_size, num_codebooks=default):
            assert num_codebooks == default
            super().__init__(dim, codebook_size)

    assert "num_codebooks" not in describe(Codec).make


def test_a_constructor_that_takes_no_single_layer_is_told_with_what_it_says():
    class Codec(SimVQ):
        def __init__(self, dim, codebook_size, n_q=2):
            if n_q < 2:
                raise ValueError("several")
            super().__init__(dim, codebook_size)

    with pytest.raises(CannotDescribe, match=r"n_q=1\) raises ValueError: several\. Describe an instance"):
        describe(Codec)


def test_a_number_of_quantizers_is_one_where_its_default_is_not():
    class Codec(SimVQ):
        def __init__(self, dim, codebook_size, n_codebooks=9, depth=2):
            assert (n_codebooks, depth) == (1, 2)
            super().__init__(dim, codebook_size)

    assert "n_codebooks=1" in describe(Codec).make


def test_a_module_without_codes_is_refused():
    with pytest.raises(CannotDescribe, match="could hold codes"):
        describe(nn.ReLU())


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("(x.detach() - q).square().mean() + self.beta * (x - q.detach())",
         "self.beta * (x.detach() - q).square().mean() + (x - q.detach())",
         "β stands on the codebook half (codebook half wanted.beta, encoder half 1.0), the reverse of the common"),
        ("self.beta * (x - q.detach())", "self.beta * (x - q).detach()", "the loss does not train the encoder"),
        ("(x.detach() - q)", "(x - q.detach())", "the codebook is a parameter and the loss does not train it"),
    ],
)  # fmt: skip
def test_a_routing_that_may_not_be_meant_is_noted(right, wrong, said, examples, tmp_path, monkeypatch):
    """It is declared as measured, so that no law is broken by it: the note is all that says so."""
    monkeypatch.setattr("sys.path", list(sys.path))
    text = (examples / "tuple_channel_last.py").read_text("utf-8")
    assert text.count(right) == 1
    file = tmp_path / "routed.py"
    file.write_text(text.replace(right, wrong), encoding="utf-8")
    description = describe(object_of(f"{file}:Quantizer"))
    (note,) = description.notes
    assert note.startswith(said)
    assert f"note: {note}" in str(description)
    usual = describe(object_of(f"{examples}/tuple_channel_last.py:Quantizer"))
    assert usual.notes == []


def test_both_halves_of_a_loss_are_seen_between_projections(examples):
    description = describe(object_of(f"{examples}/projections_cosine.py:CodecQuantizer"))
    assert description.arguments["loss_weights"] == "lambda wanted: (1.0, wanted.beta)"
    assert "loss_value" not in description.arguments


def test_a_value_in_which_one_half_alone_has_beta_is_described_as_a_sum(examples, tmp_path, monkeypatch):
    """As where the codes are frozen, and the half that would train them is added all the same."""
    monkeypatch.setattr("sys.path", list(sys.path))
    text = (examples / "projections_cosine.py").read_text("utf-8")
    made = "nn.Embedding(codebook_size, codebook_dim)"
    file = tmp_path / "frozen_codes.py"
    file.write_text(text.replace(made, f"{made}.requires_grad_(False)"), encoding="utf-8")
    description = describe(object_of(f"{file}:CodecQuantizer"))
    assert description.arguments["loss_value"] == "lambda wanted: 1.0 + 1.0 * wanted.beta"


class Narrow(nn.Module):
    """Codes between two projections, of a width that has a default."""

    def __init__(self, input_dim, codebook_size, codebook_dim=4, beta=0.25):
        super().__init__()
        self.in_proj, self.out_proj = nn.Linear(input_dim, codebook_dim), nn.Linear(codebook_dim, input_dim)
        self.codebook = nn.Embedding(codebook_size, codebook_dim)
        self.beta = beta

    def forward(self, x):
        narrow = self.in_proj(x)
        flat = narrow.reshape(-1, narrow.shape[-1])
        indices = torch.cdist(flat, self.codebook.weight).argmin(-1).reshape(x.shape[:-1])
        q = self.codebook(indices)
        loss = (narrow.detach() - q).square().mean() + self.beta * (narrow - q.detach()).square().mean()
        return self.out_proj(q.detach() + (narrow - narrow.detach())), indices, loss


class NarrowByAnotherName(Narrow):
    """The same, by a name that nobody knows."""

    def __init__(self, input_dim, codebook_size, bottleneck=4):
        super().__init__(input_dim, codebook_size, bottleneck)


def test_the_width_of_the_codes_follows_the_wanted_one():
    description = describe(Narrow)
    assert "codebook_dim=wanted.codebook_dim" in description.adapter()
    assert contradictions(description.implementation()) == []


def test_a_width_that_does_not_follow_is_named():
    with pytest.raises(CannotDescribe, match=r"makes no codes of \(K, D\) = \(7, 6\): perhaps one of bottleneck"):
        describe(NarrowByAnotherName)
