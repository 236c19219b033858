"""The command line: what it accepts, what it says, how it ends."""

import json
import sys
from pathlib import Path

import jsonschema
import pytest
from run_script import alone
from typer.testing import CliRunner

from vq_reference.testing.cli import app
from vq_reference.testing.laws.registry import laws
from vq_reference.testing.releases.fetch import ReleaseUnavailable, fetch
from vq_reference.testing.reporting import run_files
from vq_reference.testing.reporting.results import Plan
from vq_reference.testing.run.plans import planned
from vq_reference.testing.run.targets import READY, TargetUnavailable

HELD, COULD_NOT_RUN = 0, 2
FAULTY_RELEASE, MENDED_RELEASE = "vector-quantize-pytorch==1.20.10", "vector-quantize-pytorch==1.20.11"


@pytest.fixture
def check(monkeypatch):
    """Return what runs `vq-check` in this process; its children know the faulty targets, as this process does."""
    import faulty_targets

    monkeypatch.setenv("PYTEST_PLUGINS", "faulty_targets")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "support"))
    monkeypatch.setenv("VQ_CHECK_JOBS", "1")  # the other cores have tests of their own
    for name, each in faulty_targets.FAULTY.items():
        monkeypatch.setitem(READY, name, each)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_run_of_several_targets_goes_on_where_one_fails_and_writes_its_files(check, tmp_path):
    """Exit code 1: a law was not run. The other target has its verdicts."""
    files = ("--json", tmp_path / "run.json", "--junit", tmp_path / "run.xml")
    done = check("run", "faulty.import", "reference.oracle", "--profile", "quick", "--law", "rotation.out*", *files)
    assert done.exit_code == 1, done.output
    assert "reference.oracle: 1 planned = 1 held" in done.output
    assert "No module named 'faulty'" in " ".join(done.output.split())
    data = json.loads((tmp_path / "run.json").read_text("utf-8"))
    jsonschema.validate(data, run_files.schema())
    assert [run["account"]["not run"] for run in data["runs"]] == [1, 0]
    assert "<testsuites" in (tmp_path / "run.xml").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("no.such",), "no.such"),
        (("reference.oracle", "--law", "no.such"), "'no.such' matches no law"),
        (("reference.oracle", "-k", "no_such"), "'no_such' selects no law"),
        (("reference.oracle", "--expectations", "nowhere.toml"), "nowhere.toml"),
        (("reference.oracle", "--with", FAULTY_RELEASE), "no target of this run is about that package"),
        (("reference.oracle", "--with", "a>=1"), "neither 'name==version' nor 'name'"),
        (("reference.oracle", "--write-expectations", __file__), "there is such a file, and it is not overwritten"),
    ],
)
def test_a_run_that_cannot_begin_says_why_and_ends_with_2(check, arguments, said):
    """Before anything is run."""
    if FAULTY_RELEASE in arguments:
        release(FAULTY_RELEASE)
    done = check("run", *arguments)
    assert done.exit_code == COULD_NOT_RUN
    assert said in done.output + done.stderr


def test_the_help_says_that_a_target_is_executed(check):
    """Who runs a file by its name should know it."""
    assert "executes" in check("run", "--help").output


def test_laws_are_listed_as_a_table_and_as_json(check):
    """Every law, by id."""
    table, data = check("laws"), json.loads(check("laws", "--json").output)
    assert [law["id"] for law in data] == list(laws())
    assert all(law in table.output for law in laws())


@pytest.mark.parametrize("law", ["loss.encoder_half", "rotation.proper"])
def test_a_law_is_explained_by_sentence_source_bound_causes_and_remedy(check, law):
    """The causes are the mutants that it kills; the remedy is the line that they changed."""
    said = check("explain", law).output
    for heading in ("sentence", "formula", "source", "level", "bound", "likely cause", "remedy", "known bug"):
        assert heading in said


def test_an_unknown_law_is_answered_with_the_nearest(check):
    """One letter off."""
    done = check("explain", "rotation.propper")
    assert done.exit_code == COULD_NOT_RUN
    assert "did you mean rotation.proper?" in done.output + done.stderr


def test_an_object_of_ones_own_is_found_from_where_the_command_is_given(tmp_path, monkeypatch):
    """The child runs elsewhere: a file is named by its whole path, and modules are looked for here."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").touch()
    by_file, by_module = planned(["mine.py:layer", "mine:layer"], [], Plan("", (), environment={})).values()
    assert by_file.target == f"{tmp_path / 'mine.py'}:layer"
    assert by_module.target == "mine:layer"
    assert by_module.folder == str(tmp_path)
    assert by_file.called == "mine.py:layer"


MISSING = [
    ("no_such.py:adapter", "there is no file no_such.py"),
    ("no_such_module:adapter", "there is no module no_such_module"),
    ("mine.py:adaptor", "there is no adaptor in mine.py: did you mean adapter?"),
    ("mine:number", "is a int: expected an Implementation"),
]


@pytest.mark.parametrize(("target", "said"), MISSING)
@pytest.mark.parametrize("command", ["run", "describe"])
def test_a_target_that_is_not_there_is_one_line_and_ends_with_2(check, tmp_path, monkeypatch, command, target, said):
    """No table, no folder of ours in the message; `run` finds modules in the current folder, and so does its child."""
    if (command, target) == ("describe", "mine:number"):
        said = "expected a torch module or its class"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "mine.py").write_text("adapter = number = 3\n", encoding="utf-8")
    options = ("--profile", "quick", "--law", "rotation.proper") if command == "run" else ()
    done = check(command, target, *options)
    assert done.exit_code == COULD_NOT_RUN
    assert target in done.stderr
    assert said in done.stderr
    assert "not run" not in done.output
    assert "vq-check-" not in done.output + done.stderr


def test_a_module_of_the_current_folder_is_run_and_described(check, tmp_path, monkeypatch, pytestconfig):
    """As `python -m` finds it; the report calls it what its user calls it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = "tuple_channel_last"
    (tmp_path / f"{name}.py").write_text((pytestconfig.rootpath / f"examples/{name}.py").read_text("utf-8"), "utf-8")
    described = check("describe", f"{name}:Quantizer")
    assert described.exit_code == HELD
    assert f"from {name} import Quantizer" in described.output
    done = check("run", f"{name}:adapter", "--profile", "quick", "--law", "rotation.proper", "--json", "run.json")
    assert done.exit_code == COULD_NOT_RUN, done.stderr
    assert f"{name}:adapter: 1 planned = 0 held + 0 broken + 1 not applicable" in done.output
    (law,) = json.loads((tmp_path / "run.json").read_text("utf-8"))["runs"][0]["laws"]
    assert law["message"] == f"{name}:adapter does not declare the rotation trick"


def test_a_target_that_is_not_known_is_refused_before_anything_is_fetched():
    """A name that was misspelt costs no download."""
    with pytest.raises(TargetUnavailable, match=r"no\.such"):
        planned(["no.such"], ["not-a-package==0"], Plan("", ()))


def release(requirement):
    try:
        return fetch(requirement)
    except ReleaseUnavailable as reason:
        pytest.skip(f"release not available: {reason}")


def test_issue_177_is_expected_where_it_was_gone_where_it_was_mended_and_shown_by_its_script(check, tmp_path):
    """One run on both releases; then its script, alone, on both: exit code 1 and 0."""
    faulty, mended = release(FAULTY_RELEASE), release(MENDED_RELEASE)
    only = ("--law", "loss.encoder_half")
    options = ("--with", FAULTY_RELEASE, "--with", MENDED_RELEASE, "--expectations", "vector-quantize-pytorch")
    done = check("run", "lucidrains.SimVQ", *options, *only, "--profile", "quick", "--scripts", tmp_path)
    assert done.exit_code == HELD, done.output
    assert "SimVQ 1.20.10: 1 planned = 0 held + 0 broken + 0 not applicable + 1 expected" in done.output
    assert "SimVQ 1.20.11: 1 planned = 1 held" in done.output
    (script,) = tmp_path.glob("*.py")
    assert script.stem.endswith("loss.encoder_half")
    for installed, code, verdict in ((faulty, 1, "broken"), (mended, 0, "holds")):
        ended = alone(script.read_text("utf-8"), tmp_path, installed)
        assert ended.returncode == code, ended.stderr
        assert ended.stdout.splitlines()[-1] == verdict


def test_a_folder_that_holds_another_vq_reference_does_not_replace_the_one_that_runs(check, tmp_path, monkeypatch):
    """As the folder of a clone does, from which it was installed."""
    (tmp_path / "vq_reference").mkdir()
    (tmp_path / "vq_reference" / "__init__.py").write_text("raise ImportError('another one')", encoding="utf-8")
    text = "from vq_reference.testing.adapters.ready.oracle import oracle as layer"
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    done = check("run", "mine:layer", "--law", "loss.formula", "--profile", "quick")
    assert done.exit_code == HELD, done.output


def test_a_run_in_which_no_law_applies_has_checked_nothing(check):
    done = check("run", "reference.oracle", "--law", "ema.*", "--profile", "quick")
    assert done.exit_code == COULD_NOT_RUN
    said = " ".join(done.output.split())
    assert "no law applies, nothing was checked" in said
    assert "no law that was chosen applies to reference.oracle" in said
