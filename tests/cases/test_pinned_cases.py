"""Pinned cases as files: the schema, the round trip, and the command that adds one."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from vq_reference.testing.cases.case import CaseRefused, PinnedCase, check, decoded, encoded, read, read_all
from vq_reference.testing.cli import app
from vq_reference.testing.releases.fetch import pinned_sha256

CASES = Path(__file__).parents[2] / "regressions" / "cases"
SAID = {
    "id": "encoder-half",
    "what": "The encoder half is missing.",
    "formula": "ℓ = …",
    "link": None,
    "package": None,
    "first_bad": None,
    "last_bad": None,
    "first_good": None,
    "mutant": "encoder-half-missing",
    "flags": ["no_release", "value_right"],
}

TARGET = """
from vq_reference.testing.mutants import implementation_of_mutant
def faulty(): return implementation_of_mutant("encoder-half-missing")
"""


@pytest.mark.parametrize("path", sorted(CASES.glob("*.json")), ids=lambda path: path.stem)
def test_a_case_meets_the_schema_and_comes_back_as_it_was_written(path):
    data = json.loads(path.read_text("utf-8"))
    check(data)
    assert read(path).as_json() == data
    assert path.stem in read_all(CASES)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("flags", ["strange"]),
        ("id", "With Capitals"),
        ("x", {"shape": [1], "float64": ["0.5"]}),
        ("dtype", "int8"),
        ("link", "http://example.org"),
        ("expected", {}),
    ],
)
def test_what_the_schema_does_not_know_is_refused_by_name(field, value):
    data = json.loads((CASES / "reflection.json").read_text("utf-8"))
    with pytest.raises(CaseRefused, match=f"^{field}"):
        check({**data, field: value})


def test_another_form_is_refused():
    data = json.loads((CASES / "reflection.json").read_text("utf-8"))
    with pytest.raises(CaseRefused, match="form 2: this version reads form 1"):
        PinnedCase.from_json({**data, "form": 2})


@pytest.mark.parametrize("value", [0.1, -0.0, 5e-324, float("inf"), float("-inf"), 1.7976931348623157e308])
def test_floats_keep_every_bit(value):
    assert decoded(encoded(value)).hex() == value.hex()
    assert decoded(json.loads(json.dumps(encoded(np.array([[value]]))))).tobytes() == np.array([[value]]).tobytes()


def add(*arguments):
    return CliRunner().invoke(app, ["case", "add", *map(str, arguments)])


@pytest.fixture
def run(tmp_path):
    """A run that found the counterexample of a target with a fault."""
    target, path = tmp_path / "half_target.py", tmp_path / "run.json"
    target.write_text(TARGET, encoding="utf-8")
    law = "loss.encoder_half"
    done = CliRunner().invoke(app, ["run", f"{target}:faulty", "--law", law, "--json", str(path)])
    assert done.exit_code == 1, done.output
    return path


def test_a_counterexample_becomes_a_case_once(tmp_path, run):
    draft, folder = tmp_path / "draft.json", tmp_path / "cases"
    draft.write_text(json.dumps(SAID), encoding="utf-8")
    done = add(draft, "--from", run, "--law", "loss.encoder_half", "--to", folder)
    assert done.exit_code == 0, done.output
    (case,) = read_all(folder).values()
    assert case.layer["object"] == "SimVQ"
    assert {"output", "indices", "losses", "gradient at x", "gradient at 0.weight"} <= set(case.expected)

    again = add(draft, "--from", run, "--law", "loss.encoder_half", "--to", folder)
    assert (again.exit_code, "already" in again.stderr) == (2, True)
    draft.write_text(json.dumps({**SAID, "id": "another-name"}), encoding="utf-8")
    again = add(draft, "--from", run, "--law", "loss.encoder_half", "--to", folder)
    assert (again.exit_code, "asks the same" in again.stderr) == (2, True)
    assert len(read_all(folder)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "missing ['dtype', 'layer', 'x', 'mask', 'g_output', 'g_losses']"),
        ({"colour": "red"}, "unknown ['colour']"),
    ],
)
def test_a_draft_that_lacks_or_holds_too_much_is_refused(tmp_path, change, message):
    draft = tmp_path / "draft.json"
    draft.write_text(json.dumps({**SAID, **change}), encoding="utf-8")
    done = add(draft, "--to", tmp_path / "cases")
    assert done.exit_code == 2
    assert message in done.stderr


def test_a_quantity_that_the_layer_has_not_is_refused(tmp_path):
    data = json.loads((CASES / "reflection.json").read_text("utf-8"))
    known = {name: data[name] for name in (*SAID, "dtype", "layer", "x", "mask", "g_output", "g_losses")}
    draft = tmp_path / "draft.json"
    draft.write_text(json.dumps({**known, "quantities": ["codes after the step"]}), encoding="utf-8")
    done = add(draft, "--to", tmp_path / "cases")
    assert (done.exit_code, "are not among" in done.stderr) == (2, True)


def renew(name, folder):
    return CliRunner().invoke(app, ["case", "renew", name, "--in", str(folder)])


def test_a_renewed_case_asks_what_it_asked_and_has_the_bounds_of_today(tmp_path):
    data = json.loads((CASES / "reflection.json").read_text("utf-8"))
    stale = {**data, "bound": {name: encoded(0 * decoded(bound)) for name, bound in data["bound"].items()}}
    (tmp_path / "reflection.json").write_text(json.dumps(stale), encoding="utf-8")
    assert renew("reflection", tmp_path).exit_code == 0
    assert json.loads((tmp_path / "reflection.json").read_text("utf-8")) == data


def test_a_case_that_is_not_there_is_not_renewed(tmp_path):
    done = renew("typo", tmp_path)
    assert (done.exit_code, "there is no such case" in done.stderr) == (2, True)


def test_every_release_that_a_case_names_is_pinned_by_its_hash():
    for case in read_all(CASES).values():
        for version in filter(None, (case.last_bad, case.first_good)):
            assert pinned_sha256("vector-quantize-pytorch", version), f"{case.id}: {version}"
