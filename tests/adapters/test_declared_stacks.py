"""A user's residual stack: declared by one word, judged by the laws of stacks, each of which sees its fault."""

import importlib
import sys

import pytest
import torch
from run_script import alone
from torch import nn

from vq_reference.testing.adapters.declare.torch_quantizer import torch_quantizer
from vq_reference.testing.interface.errors import DeclarationContradicted
from vq_reference.testing.laws.registry import laws
from vq_reference.testing.laws.verdict import Verdict
from vq_reference.testing.mutants.kill import first_failure
from vq_reference.testing.run.judge import judge
from vq_reference.testing.run.targets import implementation_of

LAWS = laws()
FAULTS = (Verdict.BROKEN, Verdict.CRASHED)
# law → what the example says, and what stands there instead
WRONG = {
    "stack.sum": ("total, left = total + q.detach()", "total, left = q.detach()"),
    "stack.nearest": ("flat = left.reshape", "flat = x.reshape"),
    "stack.losses": ("losses.append(self.commitment_weight * loss)", "losses.append(loss)"),
    "stack.flow": ("left - q.detach()\n", "left - (left + (q - left).detach())\n"),
    "stack.codes": ("left - q.detach()\n", "left - q\n"),
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
    assert len(its) == 8 + ("stack:trained" in made.capabilities)
    return [o.law for o in (judge(law, made, "quick", None)[0] for law in its) if o.verdict in FAULTS]


def test_the_example_breaks_no_law_of_stacks(pytestconfig):
    assert not failing(implementation_of(f"{pytestconfig.rootpath}/examples/residual_stack.py:adapter"))


@pytest.mark.parametrize("law", WRONG)
def test_a_law_sees_its_fault(law, example):
    faulty = example(f"stack_wrong_in_{law.replace('.', '_')}", *WRONG[law])
    assert first_failure(LAWS[law], faulty.adapter()) is not None


@pytest.mark.parametrize("law", ["stack.flow", "stack.decode", "stack.codes"])
def test_a_script_shows_the_fault_and_holds_on_the_mended_stack(law, example, tmp_path):
    name = f"stack_mended_in_{law.replace('.', '_')}"
    found = judge(LAWS[law], example(name, *WRONG[law]).adapter(), "quick", None)[0].counterexample
    assert found.script, found.no_script
    bad = alone(found.script, tmp_path)
    example(name)
    mended = alone(found.script, tmp_path)
    assert [each.returncode for each in (bad, mended)] == [1, 0], (bad, mended)


def test_a_stack_that_is_called_in_a_way_of_its_own_has_a_script_too(example, tmp_path):
    faulty = example("stack_called", *WRONG["stack.flow"])
    made = torch_quantizer(
        lambda asked: faulty.ResidualQuantizer(
            asked.dim, asked.codebook_size, asked.layers, asked.beta, asked.commitment_weight
        ),
        "codebooks",
        indices="... 1",
        loss_shape=(1,),
        decode="decode",
        call=lambda module, x: module.forward(x),
        stack=True,
    )
    found = judge(LAWS["stack.flow"], made, "quick", None)[0].counterexample
    assert found.script, found.no_script
    bad = alone(found.script, tmp_path)
    example("stack_called")
    mended = alone(found.script, tmp_path)
    assert [each.returncode for each in (bad, mended)] == [1, 0], (bad, mended)


DEEP = {
    "the output trains later codes": ("total + q.detach()", "total + (q if losses[1:] else q.detach())"),
    "later codes are not trained": ("left.detach() - q)", "left.detach() - (q.detach() if losses else q))"),
    "later losses are 0 in eval": (
        "losses.append(self.commitment_weight * loss)",
        "losses.append(self.commitment_weight * loss * (self.training or not losses))",
    ),
    "without gradients the first codebook serves all": (
        "for codebook in self.codebooks",
        "for codebook in self.codebooks if torch.is_grad_enabled() else [self.codebooks[0]] * len(self.codebooks)",
    ),
}


@pytest.mark.parametrize("fault", DEEP)
def test_what_only_later_layers_show_is_seen(fault, example):
    faulty = example(f"stack_deep_{list(DEEP).index(fault)}", *DEEP[fault])
    law = LAWS["stack.codes" if "codes" in fault else "stack.eval"]
    assert first_failure(law, faulty.adapter()) is not None


class Own(nn.Module):
    """A stack in the widest dtypes and the rarest forms: sums of squares, a list of losses, none in eval."""

    def __init__(self, asked, summed=False, straight=False, shared=False):
        super().__init__()
        layers = [nn.Embedding(asked.codebook_size, asked.dim) for _ in range(asked.layers)]
        self.books = nn.ModuleList(layers[:1] * asked.layers if shared else layers)
        self.asked, self.summed, self.straight = asked, summed, straight

    def forward(self, x):
        """Return output, indices (..., L), and a list of losses."""
        total, left, chosen, losses = torch.zeros_like(x), x, [], []
        for book in self.books:
            indices = torch.cdist(left, book.weight, compute_mode="donot_use_mm_for_euclid_dist").argmin(-1)
            q = book(indices)
            loss = (left.detach() - q).square() + self.asked.beta * (left - q.detach()).square()
            losses.append(self.asked.commitment_weight * (loss.sum() if self.summed else loss.mean()))
            step = left + (q - left).detach() if self.straight else q.detach()
            total, left = total + step, left - step
            chosen.append(indices)
        output = total if self.straight else total + (x - x.detach())
        return output, torch.stack(chosen, -1), losses if self.training else None


def own(dtype="float64", reduction="mean", flow="identity", **parts):
    return torch_quantizer(
        lambda asked: Own(asked, **parts),
        "books.*.weight",
        indices="... 1",
        loss_shape=(1,),
        loss_reduction=reduction,
        eval_loss="zero",
        stack=True,
        stack_flow=flow,
        dtype=dtype,
    )


@pytest.mark.parametrize(
    "made",
    [
        lambda: own(),
        lambda: own(dtype="float32", reduction="sum", summed=True),
        lambda: own(flow="none", straight=True),
    ],
    ids=["float64", "sums", "the first loss alone"],
)
def test_a_right_stack_in_a_rare_form_breaks_no_law_of_stacks(made):
    its = [law for law in LAWS.values() if law.id.startswith("stack.") and not made().lacks(law.needs)]
    outcomes = [judge(law, made(), "quick", None)[0] for law in its]
    assert not [f"{o.law}: {o.message}" for o in outcomes if o.verdict in FAULTS]


def test_layers_that_share_one_codebook_are_refused():
    with pytest.raises(DeclarationContradicted, match="layers that share one codebook"):
        own(shared=True)


@pytest.mark.parametrize("given", [{"eval_as_training": False}, {"loss_value": lambda reference: 1.0}])
def test_what_no_law_of_stacks_allows_for_is_refused(given):
    with pytest.raises(ValueError, match="expected a loss of two halves, and that eval is as training"):
        torch_quantizer(lambda asked: Own(asked), "books.*.weight", indices="... 1", stack=True, **given)


def test_layers_in_a_path_without_a_stack_are_refused():
    """The other layers would not be judged, and nothing would say so."""
    with pytest.raises(ValueError, match=r"\* is the number of a layer: expected stack=True"):
        torch_quantizer(lambda wanted: nn.Identity(), "layers.*.embed")
    with pytest.raises(ValueError, match=r"stack_flow is 'none': expected stack=True"):
        torch_quantizer(lambda wanted: nn.Identity(), "embed", stack_flow="none")


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
        ({"loss_weights": (0.0, 1.0)}, r"loss_weights is \(0.0, 1.0\) where β = 1.0 and w = 0.5 are wanted"),
        ({"estimator": "rotation"}, "expected straight_through among them"),
        ({"loss_at": None}, "stack is given, and loss_at is None: expected a path for the codebook, a loss"),
        ({"metric": "cosine"}, "stack is given, and metric is 'cosine': expected"),
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
            freeze=freeze,
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
