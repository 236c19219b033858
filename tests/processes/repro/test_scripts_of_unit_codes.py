"""Scripts of a module that chooses by direction and outputs a unit code: exit code 1 on the wrong one, 0 mended."""

import importlib

import pytest
from run_script import alone
from torch import nn

from vq_reference.testing.adapters.declare.torch_quantizer import torch_quantizer
from vq_reference.testing.laws.registry import laws
from vq_reference.testing.run.judge import judge

RIGHT = """
import torch
from torch import nn
from torch.nn.functional import normalize


class Directions(nn.Module):
    def __init__(self, dim, size):
        super().__init__()
        self.codebook = nn.Parameter(torch.randn(size, dim))

    def forward(self, x):
        unit = normalize(self.codebook, dim=-1)
        indices = (normalize(x, dim=-1) @ unit.T).argmax(dim=-1)
        return unit[indices], indices

    def decode(self, indices):
        return normalize(self.codebook[indices], dim=-1)
"""
# law → what is right, and what stands there instead
FAULTS = {
    "decode.output": ("return normalize(self.codebook[indices], dim=-1)", "return self.codebook[indices]"),
    "call.leading": ("return unit[indices]", "return unit[indices * (x.ndim == 3)]"),
}


def adapter(make):
    return torch_quantizer(
        lambda wanted: make(wanted.dim, wanted.codebook_size),
        "codebook", loss_at=None, metric="cosine", unit_codes=True, decode="decode",
    )  # fmt: skip


@pytest.mark.parametrize("law", FAULTS)
def test_a_script_compares_with_unit_codes_and_holds_on_the_mended_module(law, tmp_path, monkeypatch):
    right, wrong = FAULTS[law]
    assert RIGHT.count(right) == 1
    name = f"directions_{law.replace('.', '_')}"
    (tmp_path / f"{name}.py").write_text(RIGHT.replace(right, wrong), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    make: type[nn.Module] = importlib.import_module(name).Directions
    found = judge(laws()[law], adapter(make), "quick", None)[0].counterexample
    assert found.script, found.no_script
    bad = alone(found.script, tmp_path)
    (tmp_path / f"{name}.py").write_text(RIGHT, encoding="utf-8")
    mended = alone(found.script, tmp_path)
    assert [each.returncode for each in (bad, mended)] == [1, 0], (bad, mended)
    assert [each.stdout.splitlines()[-1] for each in (bad, mended)] == ["broken", "holds"]
