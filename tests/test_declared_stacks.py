"""A user's residual stack: declared by one word, judged by the laws of stacks, each of which sees its fault."""

import importlib
import sys

import pytest
import torch
from alone import alone
from torch import nn

from vq_reference.testing.adapters.declaration import DeclarationContradicted
from vq_reference.testing.adapters.quantizer import torch_quantizer
from vq_reference.testing.catalogue import laws
from vq_reference.testing.judge import judge
from vq_reference.testing.mutants.kill import first_failure
from vq_reference.testing.targets import implementation_of
from vq_reference.testing.verdict import Verdict

LAWS = laws()
FAULTS = (Verdict.BROKEN, Verdict.CRASHED)
# law → what the example says, and what stands there instead
WRONG = {
    "stack.sum": ("total, left = total + q.detach()", "total, left = q.detach()"),
    "stack.nearest": ("flat = left.reshape", "flat = x.reshape"),
    "stack.losses": ("losses.append(self.commitment_weight * loss)", "losses.append(loss)"),
    "stack.flow": ("left - q.detach()\n", "left - (left + (q - left).detach())\n"),
    "stack.gain": ("total + (x - x.detach())", "total + len(losses) * (x - x.detach())"),
    "stack.decode": (
        "zip(self.codebooks, indices.unbind(dim=-1)",
        "zip(self.codebooks[1:], indices[..., 1:].unbind(-1)",
    ),
    "stack.eval": ("q = codebook[indices]", "q = codebook[indices if self.training else indices.flip(0)]"),
    "state.loaded": (
        "self.codebooks = nn.Parameter(torch.randn(layers, codebook_size, dim))",
        "self.register_buffer('codebooks', nn.Parameter(torch.randn(layers, codebook_size, dim)), persistent=False)",
    ),
}


@pytest.fixture
def example(pytestconfig, tmp_path, monkeypatch):
    """The example with a line of it changed, as a module of its own; the file is written anew at each call."""
    text = (pytestconfig.rootpath / "examples" / "residual_stack.py").read_text("utf-8")
    monkeypatch.syspath_prepend(tmp_path)

    def written(name, right="", wrong=""):
        assert not right or text.count(right) == 1
        (tmp_path / f"{name}.py").write_text(text.replace(right, wrong) if right else text, encoding="utf-8")
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return written


def failing(made):
    its = [law for law in LAWS.values() if law.id.startswith(("stack", "state.history")) and not made.lacks(law.needs)]
    assert len(its) == 8
    return [o.law for o in (judge(law, made, "quick", None)[0] for law in its) if o.verdict in FAULTS]


def test_the_example_breaks_no_law_of_stacks(pytestconfig):
    assert not failing(implementation_of(f"{pytestconfig.rootpath}/examples/residual_stack.py:adapter"))


@pytest.mark.parametrize("law", WRONG)
def test_a_law_sees_its_fault(law, example):
    faulty = example(f"stack_wrong_in_{law.replace('.', '_')}", *WRONG[law])
    assert first_failure(LAWS[law], faulty.adapter()) is not None


@pytest.mark.parametrize("law", ["stack.flow", "stack.decode"])
def test_a_script_shows_the_fault_and_holds_on_the_mended_stack(law, example, tmp_path):
    name = f"stack_mended_in_{law.replace('.', '_')}"
    found = judge(LAWS[law], example(name, *WRONG[law]).adapter(), "quick", None)[0].counterexample
    assert found.script, found.no_script
    bad = alone(found.script, tmp_path)
    example(name)
    mended = alone(found.script, tmp_path)
    assert [each.returncode for each in (bad, mended)] == [1, 0], (bad, mended)


class Layer(nn.Module):
    """Codes (D, K) that follow their tokens, unless they are told not to."""

    def __init__(self, dim, size):
        super().__init__()
        self.register_buffer("embed", torch.randn(dim, size))
        self.register_buffer("average", self.embed.clone())
        self.moves = True

    def forward(self, x):
        """Return codes and indices of (B, D, T)."""
        indices = (x[:, None] - self.embed.T[..., None]).square().sum(dim=2).argmin(dim=1)
        q = self.embed.T[indices].movedim(-1, 1)
        if self.training and self.moves:
            self.average.lerp_(x.detach().mean(dim=(0, 2))[:, None], 0.5)
            self.embed.copy_(self.average)
        return q, indices


class Channels(nn.Module):
    """Layers of their own, (B, D, T), indices (L, B, T), in a dict; no gradient trains the codes."""

    def __init__(self, dim, size, layers, weight):
        super().__init__()
        self.layers, self.weight = nn.ModuleList([Layer(dim, size) for _ in range(layers)]), weight

    def forward(self, x):
        """Return a dict."""
        left, chosen, losses = x, [], []
        for layer in self.layers:
            q, indices = layer(left)
            losses.append(self.weight * (left - q).square().mean())
            left = left - q
            chosen.append(indices)
        return {
            "z": (x - left).detach() - (x.detach() - x),
            "codes": torch.stack(chosen),
            "losses": torch.stack(losses),
        }

    def decode(self, codes):
        """Return the sum of codes, (B, D, T)."""
        return sum(layer.embed.T[each] for layer, each in zip(self.layers, codes, strict=True)).movedim(-1, 1)


def freeze(module):
    for layer in module.layers:
        layer.moves = False


def channels(**changed):
    declared = {
        "codebook": "layers.*.embed.T",
        "x": "B D T",
        "indices": "1 B T",
        "output_at": "z",
        "indices_at": "codes",
        "loss_at": "losses",
        "loss_weights": lambda wanted: (0.0, wanted.commitment_weight),
        "decode": "decode",
        "freeze": freeze,
        "stack": True,
    }
    return torch_quantizer(
        lambda wanted: Channels(wanted.dim, wanted.codebook_size, wanted.layers, wanted.commitment_weight),
        **{**declared, **changed},
    )


def test_layers_of_their_own_with_channels_and_layers_first_break_no_law_of_stacks():
    assert not failing(channels())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"indices": "B T"}, "indices is 'B T': expected, with a stack, 1 for the axis of the layers"),
        ({"indices": "1 T B"}, "indices is '1 T B': expected, with a stack, the order of x, B D T"),
        ({"loss_weights": (0.0, 1.0)}, r"loss_weights is \(0.0, 1.0\) where β = 1.0 and w = 0.5 are wanted"),
        ({"estimator": "rotation"}, "expected straight_through among them"),
        ({"loss_at": None}, "expected a path for the codebook, indices, a loss"),
    ],
)
def test_what_is_missing_for_a_stack_is_said(changed, said):
    with pytest.raises(ValueError, match=said):
        channels(**changed)


def test_an_instance_is_refused():
    with pytest.raises(ValueError, match="stack is given for an instance"):
        torch_quantizer(
            Channels(3, 2, 1, 1.0),
            "layers.*.embed.T",
            x="B D T",
            indices="1 B T",
            output_at="z",
            indices_at="codes",
            loss_at="losses",
            loss_weights=(0, 1),
            stack=True,
        )


class Alone(Channels):
    """It has one layer, however many are wanted."""

    def __init__(self, dim, size, layers, weight):
        super().__init__(dim, size, 1, weight)


def test_a_stack_that_does_not_have_the_layers_that_are_wanted_is_refused(monkeypatch):
    monkeypatch.setitem(globals(), "Channels", Alone)
    with pytest.raises(DeclarationContradicted, match=r"\(1, 3, 5\), for 2 layers of codes \(3, 5\)"):
        channels()


def test_an_axis_that_is_not_that_of_the_layers_is_refused():
    with pytest.raises(DeclarationContradicted, match="for 7 tokens, 2 layers"):
        channels(loss_at=lambda returned: returned["losses"].sum())
