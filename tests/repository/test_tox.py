"""What tox.ini promises, and the first command of each of its environments."""

import configparser
import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

import environment
import mutation
import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "tox.ini").read_text(encoding="utf-8")
WORKFLOW = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
SETTINGS = configparser.ConfigParser(interpolation=None)
SETTINGS.read_string(TEXT)
DIAGONAL = re.split(r",\s*", SETTINGS["tox"]["labels"].strip().removeprefix("diagonal = "))
FOUND = {"py": "3.12.1", "torch": "2.13.0+cpu", "numpy": "2.4.6"}
NIGHTLY = {**FOUND, "torch": "2.16.0.dev20261124+cpu"}


@pytest.mark.parametrize(
    ("factor", "found"),
    [
        *[(met, FOUND) for met in ("py3.12", "torch2.13", "torch2.13.0", "torch2.13+", "torch2.9+", "numpy2", "tests")],
        *[("nightly", NIGHTLY), ("upstream", FOUND), ("1.20.10", FOUND)],
    ],
)
def test_a_factor_is_met_by_the_version_that_it_names(factor, found):
    assert environment.unmet(factor, found) == ""


@pytest.mark.parametrize(
    "factor", ["py3.1", "py3.11", "torch2.1", "torch2.13.1", "torch2.14+", "torch2.15", "numpy1", "numpy2.5", "nightly"]
)
def test_a_factor_is_not_met_by_any_other(factor):
    """3.12 is no 3.1, and 2.13 is neither 2.1 nor later than 2.14."""
    assert environment.unmet(factor, FOUND).startswith("expected ")


def test_an_environment_ends_at_once_where_the_checkout_is_imported_or_a_version_differs(monkeypatch):
    monkeypatch.setattr(environment.torch, "__version__", "2.13.0+cpu")
    monkeypatch.setattr(environment.vq_reference, "__file__", str(ROOT / "vq_reference" / "__init__.py"))
    with pytest.raises(SystemExit, match=r"expected torch 2\.0, found 2\.13\.0\+cpu; vq_reference .* is imported from"):
        environment.main("torch2.0")


def test_every_environment_that_runs_the_package_begins_with_what_it_is_named_after():
    assert SETTINGS["testenv"]["commands_pre"] == "python {tox_root}/tests/tox/environment.py {env_name}"
    assert not [name for name in SETTINGS if name.startswith("testenv:") and SETTINGS[name].get("commands_pre")]
    without = {name for name in SETTINGS if name.startswith("testenv:") and SETTINGS[name].get("commands_pre") == ""}
    assert without == {"testenv:lint", "testenv:evidence", "testenv:docs"}


def test_every_torch_of_the_diagonal_has_its_requirement():
    """A name whose factor no line of `deps` knows would be tested on another torch: its first command says so."""
    factors = {factor for name in DIAGONAL for factor in name.split("-") if re.match(r"(torch|numpy)\d", factor)}
    assert factors
    for factor in factors:
        assert re.search(rf"^    {re.escape(factor)}: ", TEXT, re.MULTILINE), factor


def test_the_workflow_runs_the_diagonal_and_what_a_change_has_to_pass_each_in_a_job():
    jobs = re.findall(r"- \{environment: ([^,}]+), python: \"([^\"]+)\"\}", WORKFLOW)
    names = [name for name, _ in jobs]
    assert len(set(names)) == len(names)
    assert set(DIAGONAL) | set(re.split(r",\s*", SETTINGS["tox"]["env_list"])) <= set(names)
    for name, python in jobs:
        named = re.match(r"py(\d\.\d+)", name)
        assert named is None or named[1] == python, name


def test_no_host_is_named():
    assert "://" not in TEXT + WORKFLOW


def test_the_continuous_integration_ends_with_the_suite():
    names = re.split(r",\s*", SETTINGS["tox"]["env_list"])
    assert {"tests", "processes", "oldest", "newest", "lint", "wheel"} == set(names)
    assert names[-1] == "tests"


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("oldest", ["torch2.0", "numpy1"]),
        ("newest", ["torch2.15+"]),
        ("nightly", ["nightly"]),
        ("packages", ["torch2.10"]),
        ("py3.10-torch2.6-numpy1", ["py3.10", "torch2.6", "numpy1"]),
        *[(name, [*name.split("-"), "torch2.13"]) for name in ("tests", "verify", "upstream-1.20.10")],
    ],
)
def test_a_name_asks_for_its_versions_and_else_for_the_default_torch(name, asked):
    assert environment.factors(name) == asked


@pytest.mark.parametrize(
    ("killed", "timeout", "total", "enough"), [(94, 1, 100, True), (94, 0, 100, False), (0, 0, 0, False)]
)
def test_a_mutation_run_ends_well_where_tests_see_nineteen_of_twenty_mutants(killed, timeout, total, enough):
    found = mutation.fault({"killed": killed, "timeout": timeout, "total": total})
    assert found == ("" if enough else f"tests see {killed + timeout} of {total} mutants: expected 95%")


def test_the_tests_that_judge_mutants_are_there():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mutmut"]
    named = [*settings["pytest_add_cli_args_test_selection"], *settings["only_mutate"], *settings["also_copy"]]
    assert [pattern for pattern in named if not list(ROOT.glob(pattern.rstrip("/")))] == []
