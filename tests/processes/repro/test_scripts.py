"""Scripts of broken laws, each run alone, as its reader would: exit code 1 on the bad target, 0 on its mended twin."""

import sys
from dataclasses import replace

import pytest
from run_script import alone

from vq_reference.testing.adapters.declare.torch_quantizer import torch_quantizer
from vq_reference.testing.adapters.ready.simvq import reference_module
from vq_reference.testing.laws.registry import laws
from vq_reference.testing.run.judge import judge
from vq_reference.testing.run.targets import implementation_of

# shape → (its line, the line with a bug in it, the object, a law that sees the bug)
SHAPES = {
    "tuple_channel_last": (
        "self.beta * (x - q.detach())", "self.beta * (x - q).detach()", "adapter", "loss.encoder_half"
    ),
    "image_flat_indices": ("(x - x.detach())", "2 * (x - x.detach())", "adapter", "straight_through.identity"),
    "projections_cosine": (
        "self.beta * (latent - q.detach())", "self.beta * (latent - q).detach()", "adapter", "loss.encoder_half"
    ),
    "moving_average": ("(x - q).square()", "2 * (x - q).square()", "adapter", "loss.formula"),
    "residual_stack": ("(left.detach() - q)", "(left - q).detach()", "adapter", "loss.codebook_half"),
    "bare_estimator": ("+ 2 * q_hat", "- 2 * q_hat", "adapter", "rotation.proper"),
}  # fmt: skip


def judged(target, law):
    return judge(laws()[law], implementation_of(target), "quick", None)[0]


@pytest.fixture
def place(tmp_path, monkeypatch, pytestconfig):
    """Return what puts an example into a folder of its own, with a line changed or not."""
    monkeypatch.setattr(sys, "path", list(sys.path))

    def put(shape, right="", wrong=""):
        text = (pytestconfig.rootpath / "examples" / f"{shape}.py").read_text("utf-8")
        assert not right or text.count(right) == 1
        file = tmp_path / f"{shape}_here.py"
        file.write_text(text.replace(right, wrong) if right else text, encoding="utf-8")
        return file

    return put


@pytest.mark.parametrize("shape", SHAPES)
def test_a_script_of_each_shape_shows_the_bug_and_holds_where_it_is_mended(shape, place, tmp_path):
    right, wrong, name, law = SHAPES[shape]
    file = place(shape, right, wrong)
    found = judged(f"{file}:{name}", law).counterexample
    assert found.script, found.no_script
    assert "vq_reference" not in found.script
    bad = alone(found.script, tmp_path)
    assert (bad.returncode, bad.stderr) == (1, "")
    assert [line.split()[0] for line in bad.stdout.splitlines()[1:]] == ["expected", "actual", "bound", "broken"]
    place(shape)
    mended = alone(found.script, tmp_path)
    assert (mended.returncode, mended.stderr) == (0, "")
    assert mended.stdout.splitlines()[-1] == "holds"


# a law that needs several calls, one that is not ordinary, or no numbers; a bug that it sees; the shape, if another
SEVERAL = {
    "loss.shares": ("self.beta * (x - q.detach())", "self.beta * (x - q).detach()"),
    "nearest.translated": (
        'torch.cdist(flat, self.codebook, compute_mode="donot_use_mm_for_euclid_dist").argmin(dim=-1)',
        "(flat @ self.codebook.T).argmax(dim=-1)",
    ),
    "eval.halves": ("self.beta * (x - q.detach())", "self.beta * (x - q).detach()"),
    "call.no_grad": ("return q.detach()", "return (q.detach() if torch.is_grad_enabled() else 2 * q)"),
    "call.strided": ("self.codebook[indices]", "self.codebook[indices * x.is_contiguous()]"),
    "call.leading": ("self.codebook[indices]", "self.codebook[indices * (x.ndim == 3)]"),
    "call.state": ("flat = x.", "self.training or self.codebook.data.mul_(2); flat = x."),
    "nearest.valid": ("indices.reshape(x.shape[:-1]), loss", "indices.reshape(x.shape[:-1]) + 9, loss"),
    "form.indices": ("indices.reshape(x.shape[:-1])", "indices"),
    "form.loss": ("indices.reshape(x.shape[:-1]), loss", "indices.reshape(x.shape[:-1]), loss.double()"),
    # the layer's own codes are returned, and overwritten
    "call.aliased": ("indices.reshape(x.shape[:-1]), loss", "indices.reshape(x.shape[:-1]), loss, self.codebook"),
    # the law itself finds no code of that index
    "call.repeated": ("indices.reshape(x.shape[:-1]), loss", "indices.reshape(x.shape[:-1]) + 9, loss"),
    # the input is laid out anew before the call
    "call.input": ("used = torch", "z.detach().sub_(1); used = torch", "image_flat_indices"),
}


@pytest.mark.parametrize("law", SEVERAL)
def test_a_script_of_other_calls_or_of_a_form_shows_the_bug_and_holds_where_it_is_mended(law, place, tmp_path):
    right, wrong, *other = SEVERAL[law]
    shape = other[0] if other else "tuple_channel_last"
    file = place(shape, right, wrong)
    found = judged(f"{file}:adapter", law).counterexample
    assert found.script, found.no_script
    bad = alone(found.script, tmp_path)
    assert (bad.returncode, bad.stderr) == (1, "")
    place(shape)
    mended = alone(found.script, tmp_path)
    assert (mended.returncode, mended.stderr) == (0, "")
    assert mended.stdout.splitlines()[-1] == "holds"


def test_an_instance_that_is_described_has_a_script_too(place, tmp_path):
    right, wrong, _, _ = SHAPES["image_flat_indices"]
    file = place("image_flat_indices", right, wrong)
    given = "\n\nquantizer = ImageQuantizer(5, 4, 0.25)\n"
    file.write_text(file.read_text("utf-8") + given, encoding="utf-8")
    declared = (
        "\n\ndef of_instance():\n    return torch_quantizer(quantizer, 'embed.T', x='B D H W', indices='(B H W)', "
        "indices_at=(2, 1), loss_at=1, loss_weights=(1.0, 0.25))\n"
    )
    file.write_text(file.read_text("utf-8") + declared, encoding="utf-8")
    found = judged(f"{file}:of_instance", "straight_through.identity").counterexample
    assert found.script, found.no_script
    assert alone(found.script, tmp_path).returncode == 1
    file.write_text(file.read_text("utf-8").replace(wrong, right), encoding="utf-8")
    assert alone(found.script, tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("target", "law"),
    [
        ("lucidrains.VectorQuantize", "rotation.opposite"),
        ("lucidrains.VectorQuantize[learnable]", "aux.diversity_arrangement"),
    ],
    ids=["layer", "term"],
)
def test_a_script_of_vector_quantize_pytorch_imports_the_package_and_shows_what_the_law_saw(target, law, tmp_path):
    """Its rotation loses its digits near opposite directions, and its diversity is that of each position."""
    found = judged(target, law).counterexample
    assert found.script, found.no_script
    assert "from vector_quantize_pytorch import VectorQuantize" in found.script
    assert "vq_reference" not in found.script
    assert alone(found.script, tmp_path).returncode == 1


def test_a_layer_that_cannot_be_built_has_none_and_says_why():
    def refuse(wanted):
        raise RuntimeError("no layer of these sizes")

    found = judge(laws()["nearest.choice"], replace(reference_module(), build=refuse), "quick", None)[0].counterexample
    assert (found.script, found.no_script) == ("", "the law did not call the layer in this process")


def test_a_module_that_no_script_can_import_says_why():
    from torch import nn

    from vq_reference.nn import SimVQ

    class Local(SimVQ):
        def forward(self, x):
            output, indices, loss = super().forward(x)
            return output, indices, loss.detach()

    made = torch_quantizer(
        lambda wanted: Local(wanted.dim, wanted.codebook_size, nn.Identity(), rotation_trick=False),
        "frozen_codebook", loss_weights=(0.0, 0.25),
    )  # fmt: skip
    found = judge(laws()["loss.encoder_half"], made, "quick", None)[0].counterexample
    assert found.script == ""
    assert "Local is no name of the module" in found.no_script
