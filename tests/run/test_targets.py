"""Targets: a name, an object of a module or of a file, made in the dtype that is asked for."""

import subprocess
import sys

import faulty_targets  # noqa: F401 - it adds what goes wrong to the ready ones
import numpy as np
import pytest

from vq_reference.testing.adapters.ready import lucidrains
from vq_reference.testing.interface.implementation import Implementation
from vq_reference.testing.laws.registry import laws
from vq_reference.testing.laws.verdict import Verdict
from vq_reference.testing.run.judge import judge
from vq_reference.testing.run.targets import (
    MODES,
    READY,
    TargetUnavailable,
    expand,
    implementation_of,
    object_of,
    ready,
)

OWN = """
from torch import nn
from vq_reference.nn import SimVQ
from vq_reference.testing.adapters.declare.torch_quantizer import torch_quantizer

def adapter(dtype="float32"):
    return torch_quantizer(
        lambda wanted: SimVQ(wanted.dim, wanted.codebook_size, nn.Identity(), rotation_trick=False),
        "frozen_codebook", loss_weights=(0.0, 0.25), dtype=dtype)

made = adapter()
module = SimVQ(dim=4, codebook_size=6)
number = 3

def of_one(argument):
    return made

def raises():
    raise RuntimeError("no weights here")
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "own_quantizer", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    file = tmp_path / "own_quantizer.py"
    file.write_text(OWN, encoding="utf-8")
    return file


@pytest.mark.parametrize("name", ["adapter", "made", "module", "SimVQ"])
def test_an_object_of_a_file_is_a_target(own, name):
    made = implementation_of(f"{own}:{name}")
    assert isinstance(made, Implementation)
    assert "indices" in made.capabilities


def test_a_file_finds_the_modules_beside_it(own):
    beside = own.with_name("beside_own_quantizer.py")
    beside.write_text("from own_quantizer import made\n", encoding="utf-8")
    assert implementation_of(f"{beside}:made").capabilities == implementation_of(f"{own}:made").capabilities


def test_an_object_of_a_module_is_a_target():
    made = implementation_of("vq_reference.testing.adapters.ready.oracle:oracle")
    assert made.precision.name == "float64"


def test_an_object_of_ones_own_is_called_as_its_user_calls_it(own):
    assert implementation_of(f"{own}:adapter").name == f"{own}:adapter"
    assert implementation_of(f"{own}:adapter", called="own_quantizer.py:adapter").name == "own_quantizer.py:adapter"
    assert object_of(f"{own}:adapter")().name == "SimVQ"


def test_a_module_of_the_current_folder_is_found_as_by_python_m(own, monkeypatch):
    monkeypatch.chdir(own.parent)
    assert implementation_of("own_quantizer:adapter").name == "own_quantizer:adapter"


def test_a_module_that_imports_another_one_that_is_missing_says_which(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_importing.py").write_text("import no_such_thing\n", encoding="utf-8")
    with pytest.raises(TargetUnavailable, match=r"own_importing:x cannot be imported.*No module named 'no_such_thing'"):
        implementation_of("own_importing:x")


CONTRADICTED = """
from vq_reference.nn import SimVQ
from vq_reference.testing import torch_quantizer

def adapter():
    make = lambda wanted: SimVQ(wanted.dim, wanted.codebook_size)
    return torch_quantizer(make, "frozen_codebook", state_changes=["step"])
"""


@pytest.mark.parametrize(("last", "name"), [("", "adapter"), ("made = adapter()", "made")])
def test_a_declaration_that_is_contradicted_is_said_in_its_own_words(tmp_path, last, name):
    (tmp_path / "contradicted.py").write_text(CONTRADICTED + last, encoding="utf-8")
    target = f"{tmp_path}/contradicted.py:{name}"
    with pytest.raises(TargetUnavailable, match=r"^target .*:\w+: state_changes is declared as \['step'\], found: no"):
        implementation_of(target)


def test_a_file_that_was_misspelt_is_answered_with_the_nearest(own):
    with pytest.raises(TargetUnavailable, match=r"did you mean .*own_quantizer\.py"):
        implementation_of(f"{own.with_name('own_quantiser.py')}:adapter")


def test_an_instance_has_its_sizes(own):
    assert implementation_of(f"{own}:module").sizes == (4, 6)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("adaptor", "did you mean adapter"),
        ("number", "is a int: expected an Implementation"),
        ("of_one", "needs argument"),
        ("raises", "no weights here"),
    ],
)
def test_an_object_that_is_none_says_what_was_expected(own, name, message):
    with pytest.raises(TargetUnavailable, match=message):
        implementation_of(f"{own}:{name}")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("reference.SimVq", "did you mean reference.SimVQ"),
        ("no_such_module:x", "no module no_such_module: install it, or run this in the folder where it lies"),
        ("no_such_file.py:x", "no file no_such_file.py: give its path from the current folder"),
        (":x", "expected package.module:object"),
        ("zzz", "expected one of reference.oracle"),
    ],
)
def test_a_name_that_is_none_says_what_there_is(target, message):
    with pytest.raises(TargetUnavailable, match=message):
        implementation_of(target)


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_a_target_is_made_in_the_dtype_that_is_asked_for(own, dtype):
    for target in ("reference.SimVQ", f"{own}:adapter", f"{own}:module"):
        assert implementation_of(target, dtype=dtype).precision.name == dtype


def test_a_dtype_that_a_target_does_not_take_is_refused(own):
    for target in ("reference.oracle", f"{own}:made"):
        with pytest.raises(TargetUnavailable, match="dtype"):
            implementation_of(target, dtype="float16")


def test_a_prefix_stands_for_its_family():
    family = expand("lucidrains")
    assert family == [name for name in READY if name.startswith("lucidrains.")]
    assert expand("lucidrains.SimVQ") == ["lucidrains.SimVQ"]
    assert expand("own.py:adapter") == ["own.py:adapter"]


def test_every_ready_adapter_of_another_package_names_its_distribution():
    # other tests add faulty targets of their own
    ours = ("reference.", "faulty.")
    assert [name for name in READY if (ready(name).distribution is None) != name.startswith(ours)] == []


def test_every_mode_of_the_adapter_has_a_name():
    assert set(lucidrains.MODES) == {"", *MODES}


def test_the_command_line_asks_for_torch_only_where_a_target_does():
    """So that --help, laws and explain answer at once."""
    code = (
        "import sys; import vq_reference.testing.cli; from vq_reference.testing.laws.registry import laws; "
        "laws(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_an_exit_in_the_middle_of_a_call_is_an_error_of_the_target():
    outcome = judge(laws()["straight_through.identity"], implementation_of("faulty.leaves"), "quick", None)[0]
    assert (outcome.verdict, outcome.message) == (Verdict.CRASHED, "RuntimeError: it raised SystemExit(0)")


def test_what_a_target_does_to_numpys_settings_ends_with_its_call():
    before = np.geterr()
    implementation = implementation_of("faulty.forbids")
    outcome = judge(laws()["straight_through.identity"], implementation, "quick", None)[0]
    assert (outcome.verdict, np.geterr()) == (Verdict.HELD, before)
