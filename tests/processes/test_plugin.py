"""The pytest door: the same laws, ids and verdicts as on the command line, an account, and pytest's own last line."""

import re
import subprocess
import sys
from pathlib import Path

import numpy  # noqa: F401 - pytester forgets what a run imported, and neither of these can be imported twice
import pytest
import torch  # noqa: F401

from vq_reference.testing import assert_conforms
from vq_reference.testing.laws.law import PROFILES
from vq_reference.testing.laws.select import NothingSelected
from vq_reference.testing.run.targets import READY, TargetUnavailable

pytest_plugins = "pytester"
LAWS = ("-p", "faulty_targets", "--pyargs", "vq_reference.properties", "--vq-profile", "quick")


def chosen(*laws):
    return [option for law in laws for option in ("--vq-law", law)]


def test_laws_are_run_on_each_target_and_accounted_for_above_pytests_last_line(pytester):
    """Two targets, two accounts."""
    targets = ("--vq-target", "reference.oracle", "--vq-target", "faulty.raises")
    done = pytester.runpytest(*LAWS, *targets, *chosen("straight_through.output", "rotation.output"))
    done.assert_outcomes(passed=3, failed=1)
    last = done.outlines[-1]
    assert re.search(r"1 failed, 3 passed", last)
    done.stdout.fnmatch_lines(
        [
            "reference.oracle: 2 planned = 2 held + 0 broken + 0 not applicable + 0 expected + 0 crashed + 0 not run",
            "faulty.raises: 2 planned = 1 held + 0 broken + 0 not applicable + 0 expected + 1 crashed + 0 not run",
        ]
    )


def test_a_target_that_cannot_be_made_leaves_its_laws_not_run(pytester):
    """And says what was missing, without a traceback of ours."""
    done = pytester.runpytest(*LAWS, "--vq-target", "faulty.import", *chosen("rotation.output"))
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*No module named 'faulty'*", "faulty.import: 1 planned = * + 1 not run"])


def test_a_session_that_stops_early_names_the_laws_that_it_lost(pytester):
    """-x leaves laws without outcome: planned and accounted differ."""
    laws = chosen("straight_through.identity", "straight_through.output")
    done = pytester.runpytest(*LAWS, "-x", "--vq-target", "faulty.raises", *laws)
    done.stdout.fnmatch_lines(["faulty.raises: 2 planned = *; UNACCOUNTED: straight_through.*"])
    assert done.ret != 0


def test_an_expected_break_is_an_expected_failure_with_its_reason(pytester):
    """Shown by -rx, as pytest's own are."""
    pytester.makefile(".toml", expected='["straight_through.output"]\nreason = "a known fault"')
    options = ("-rx", "--vq-expectations", "expected.toml", "--vq-target", "faulty.raises")
    done = pytester.runpytest(*LAWS, *options, *chosen("straight_through.output"))
    done.assert_outcomes(xfailed=1)
    done.stdout.fnmatch_lines(["faulty.raises: 1 planned = *1 expected*", "XFAIL * - expected: a known fault"])


def test_an_expected_break_that_holds_fails(pytester):
    """Take it off the list."""
    pytester.makefile(".toml", expected='["straight_through.output"]\nreason = "a known fault"')
    options = ("--vq-profile", "default", "--vq-expectations", "expected.toml", "--vq-target", "reference.oracle")
    done = pytester.runpytest(*LAWS, *options, *chosen("straight_through.output"))
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*expected to break (a known fault), but holds: take it off the list*"])


def test_expectations_of_a_law_that_does_not_exist_are_a_usage_error(pytester):
    """Before any law is run."""
    pytester.makefile(".toml", expected='["no.such"]\nreason = "x"')
    done = pytester.runpytest(*LAWS, "--vq-expectations", "expected.toml")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*no.such* is no law*"])


def test_k_selects_laws_by_their_ids(pytester):
    """As on the command line; pytest's own -k knows test names, which are sentences."""
    done = pytester.runpytest(*LAWS, "--vq-target", "reference.oracle", "--collect-only", "-q", "-k", "rotation.proper")
    done.stdout.fnmatch_lines(["*test_the_rotation_is_proper_and_no_reflection*"])
    assert sum("::" in line for line in done.outlines) == 1


def test_the_account_is_the_same_in_several_processes(pytester, monkeypatch):
    """pytest-xdist: outcomes cross from its workers, and so does what they had planned."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "support"))
    laws = chosen("straight_through.output", "rotation.output")
    done = pytester.runpytest_subprocess(*LAWS, "-n", "1", "--vq-target", "faulty.raises", *laws)
    done.stdout.fnmatch_lines(["faulty.raises: 2 planned = 1 held + 0 broken + * + 1 crashed + 0 not run"])


def test_the_profiles_of_the_plugin_are_those_of_the_laws(pytester):
    """They stand twice, since the plugin imports the laws only when one is collected."""
    done = pytester.runpytest("--vq-profile", "nonsense")
    done.stderr.fnmatch_lines([f"*choose from *{'*'.join(PROFILES)}*"])


def test_the_plugin_imports_neither_torch_nor_hypothesis_before_a_law_is_collected():
    """It is loaded in every environment that has vq-reference, for suites that have no law."""
    code = (
        "import sys, vq_reference.testing.plugin, vq_reference.testing; "
        "print([m for m in ('torch', 'hypothesis', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def faulty(monkeypatch):
    """Make the faulty targets known by name in this process."""
    import faulty_targets

    for name, each in faulty_targets.FAULTY.items():
        monkeypatch.setitem(READY, name, each)


def test_one_test_of_somebodys_own_suite_runs_the_laws():
    """Two lines to adopt; a pattern selects."""
    assert_conforms("reference.oracle", only=["straight_through.*"], profile="quick")


def test_a_function_that_returns_an_implementation_conforms_as_it_does():
    """What `vq-check describe` prints is such a function."""
    from vq_reference.testing.adapters.ready.oracle import oracle

    assert_conforms(oracle, only=["rotation.proper"], profile="quick")
    assert_conforms(oracle(), only=["rotation.proper"], profile="quick")


def test_what_is_no_quantizer_is_refused_with_what_was_expected():
    """And not with an attribute that it has not."""
    with pytest.raises(TargetUnavailable, match="is a int: expected an Implementation, a function that returns one"):
        assert_conforms(3)
    with pytest.raises(TargetUnavailable, match="returned a int: expected an Implementation"):
        assert_conforms(lambda: 3)


def test_a_quantizer_that_does_not_conform_fails_with_the_report(faulty):
    """Verdict, law and account are those of the command line."""
    with pytest.raises(AssertionError) as failed:
        assert_conforms("faulty.raises", only=["straight_through.output", "rotation.output"], profile="quick")
    said = str(failed.value)
    assert "! straight_through.output (must) on faulty.raises" in said
    assert "RuntimeError: no gradient on this machine" in said
    assert "2 planned = 1 held + 0 broken + 0 not applicable + 0 expected + 1 crashed + 0 not run; 1 failed" in said


def test_an_expected_break_conforms(faulty, tmp_path):
    """As on the command line."""
    path = tmp_path / "expected.toml"
    path.write_text('["straight_through.output"]\nreason = "a known fault"', encoding="utf-8")
    assert_conforms(
        "faulty.raises", only=["straight_through.output", "rotation.output"], profile="quick", expectations=path
    )


def test_a_selection_of_nothing_does_not_conform():
    """A test of no law is green, and says nothing."""
    with pytest.raises(NothingSelected, match=r"no\.such"):
        assert_conforms("reference.oracle", only=["no.such"])
