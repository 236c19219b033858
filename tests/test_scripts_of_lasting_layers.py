"""Scripts of laws about layers that last, each run alone: exit code 1 on the bad module, 0 on its mended twin.

The modules are ours under another name, as a package of somebody else, with a fault in it or without.
"""

import importlib
import shutil
import sys

import pytest
from alone import alone

from vq_reference.testing.catalogue import laws
from vq_reference.testing.judge import judge
from vq_reference.testing.mutants import LASTING_MUTANTS
from vq_reference.testing.own_process import in_own_process
from vq_reference.testing.releases import ReleaseUnavailable, fetch

# each family, and each way to end: a comparison with the oracle, with another call, with the state before, by an
# exception, of what is no number, and of what several calls together say
FAULTS = (
    "sums-not-saved",
    "schedule-in-a-lambda",
    "eval-calls-are-counted",
    "mean-over-padding-too",
    "nothing-divided-by-nothing",
    "unused-codes-decay",
    "replaced-with-too-small-sums",
    "initialised-from-padding",
    "heads-interleaved",
    "decodes-raw-codes",
    "output-stays-wide",
    "every-layer-sees-the-input",
    "an-estimator-for-each-layer",
    "dropped-layers-have-the-first-code",
    "compiled-codes-stay",
)
# of `lasting_targets`: the target, a law, the last release that breaks it and the first that does not
MENDED = {
    "residual-dead-layers": ("stack", "stack.flow", "0.10.11", "0.10.12"),
    "ema-padding": ("with_masks", "mask.tokens", "1.6.24", "1.6.27"),
    "ema-counts-zero": ("with_its_own_counts", "ema.unused", "1.15.2", "1.15.3"),
}


@pytest.fixture
def theirs(tmp_path, monkeypatch, pytestconfig):
    """Return what writes our modules and their adapter to a folder, as a package of that name."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    library = pytestconfig.rootpath / "vq_reference"

    def write(name, fault=None):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
        (tmp_path / name).mkdir()
        for file in (library / "nn").glob("*.py"):
            text = file.read_text("utf-8")
            if fault and fault.module == f"vq_reference.nn.{file.stem}":
                text = text.replace(fault.replace, fault.by)
            text = text.replace("vq_reference.nn", name).replace("torch.ops.vq_reference", f"torch.ops.{name}")
            text = text.replace('Library("vq_reference"', f'Library("{name}"').replace('"vq_reference::', f'"{name}::')
            (tmp_path / name / file.name).write_text(text, encoding="utf-8")
        adapter = (library / "testing" / "adapters" / "vector_quantize.py").read_text("utf-8")
        (tmp_path / f"{name}_adapter.py").write_text(adapter.replace("vq_reference.nn", name), encoding="utf-8")

    return write


@pytest.mark.parametrize("name", FAULTS)
def test_a_script_shows_the_fault_and_holds_where_it_is_mended(name, theirs, tmp_path):
    fault, package = LASTING_MUTANTS[name], f"theirs_{name.replace('-', '_')}"
    theirs(package, fault)
    adapter = importlib.import_module(f"{package}_adapter")
    stacked, compiles = fault.module.endswith(".residual"), fault.killed_by.startswith("compiled")
    tested = adapter.residual_quantizer() if stacked else adapter.vector_quantize(compiles)
    found = judge(laws()[fault.killed_by], tested, "quick", None)[0].counterexample
    assert found.script, found.no_script
    assert "import vq_reference" not in found.script
    assert "from vq_reference" not in found.script
    bad = alone(found.script, tmp_path)
    assert bad.returncode == 1
    if found.what:
        assert [line.split()[0] for line in bad.stdout.splitlines()[1:]] == ["expected", "actual", "bound", "broken"]
    theirs(package)
    mended = alone(found.script, tmp_path)
    assert (mended.returncode, mended.stderr) == (0, "")
    assert "holds" in mended.stdout.splitlines()[-1]


def script_of(target, law):
    """Return what a law prints for a target of `lasting_targets`, on the release that is there."""
    tested = getattr(importlib.import_module("lasting_targets"), target)()
    return judge(laws()[law], tested, "quick", None)[0].counterexample.script


@pytest.mark.parametrize("name", MENDED)
def test_a_script_shows_the_bug_of_a_release_and_holds_on_its_fix(name, tmp_path):
    target, law, bad, good = MENDED[name]
    try:
        releases = [fetch(f"vector-quantize-pytorch=={version}") for version in (bad, good)]
    except ReleaseUnavailable as reason:
        pytest.skip(str(reason))
    script = in_own_process(script_of, target, law, release=releases[0])
    ended = [alone(script, tmp_path, release) for release in releases]
    assert [each.returncode for each in ended] == [1, 0], ended
    assert [each.stdout.splitlines()[-1] for each in ended] == ["broken", "holds"]


def test_a_layer_that_no_script_can_call_says_why():
    from vq_reference.testing.mutants import implementation_of_mutant

    found = judge(laws()["stack.sum"], implementation_of_mutant("last-code-alone"), "quick", None)[0].counterexample
    assert found.script == ""
    assert found.no_script == "the layer is no torch module that a script could call"
