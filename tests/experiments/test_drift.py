"""Drift: what is pinned, what a record holds, and which of three things is said of a difference."""

import copy

import numpy as np
import pytest
from typer.testing import CliRunner

from vq_reference.testing.cli import app
from vq_reference.testing.experiments.drift import record
from vq_reference.testing.experiments.drift.environments import Environment, change, limits
from vq_reference.testing.experiments.drift.pinned import SIZES, congruential
from vq_reference.testing.interface.implementation import Gradients
from vq_reference.testing.interface.precision import PRECISIONS
from vq_reference.testing.laws.expected.nearest import decided
from vq_reference.testing.run.targets import implementation_of

KEY = "reference.SimVQ float32 wide rotation"
ORACLE_KEY = "reference.oracle float64 narrow rotation"
PINNED = [(dtype, name) for dtype in PRECISIONS for name, _ in record.cases(dtype)]


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Return the file that this environment writes."""
    path = tmp_path_factory.mktemp("drift") / "here.json"
    record.write(path)
    return path


def shifted(environment, key, quantity, change_of):
    """Return the environment with one quantity of one case changed, and its digest with it."""
    made = copy.deepcopy(dict(environment.made))
    written = made[key][quantity]
    values = np.reshape(written["values"], written["shape"])
    made[key][quantity] = record.written(change_of(values))
    return Environment("there", environment.versions, made)


@pytest.mark.parametrize(("dtype", "name"), PINNED)
def test_no_rounding_changes_the_choice_of_a_pinned_token(dtype, name):
    """Else an index may differ where nothing moved."""
    implementation, case = implementation_of("reference.SimVQ", dtype), dict(record.cases(dtype))[name]
    assert decided(implementation, case).all()


@pytest.mark.parametrize(("dtype", "name"), PINNED)
def test_what_is_pinned_is_representable_in_the_dtype_and_uses_its_digits(dtype, name):
    precision, case = PRECISIONS[dtype], dict(record.cases(dtype))[name]
    for values in (case.x, case.codes):
        assert np.array_equal(precision.round(values), values)
    assert not np.array_equal(case.x, np.round(case.x * 4) / 4)
    assert len(np.unique(case.codes, axis=0)) == SIZES[name.split()[0]][2]


def test_the_generator_is_that_of_iso_c():
    """The first numbers for the seed 1, before they are scaled."""
    assert ((congruential((2,)) + 1) * 2**30).tolist() == [1103527590, 377401575]


def test_an_environment_is_equal_to_itself_to_the_bit(here):
    environment = Environment.read(here)
    assert {str(change(key, environment, environment)) for key in environment.made} <= {"=", "lacks"}
    assert str(change(KEY, environment, environment)) == str(change(ORACLE_KEY, environment, environment)) == "="


@pytest.mark.parametrize("quantity", ["output", "ℓ", "gradient at x", "∂ℓ/∂x", "∂ℓ/∂E", "∂ℓ/∂W"])
def test_a_difference_of_twice_the_bound_is_rounding_and_any_larger_one_is_movement(here, quantity):
    environment, limit = Environment.read(here), limits(KEY)[quantity]
    at = np.unravel_index(np.argmax(limit), np.shape(limit))

    def by(share):
        def add(values):
            values[at] += share * 2 * limit[at]
            return values

        return change(KEY, environment, shifted(environment, KEY, quantity, add))

    half, beyond = by(0.5), by(1.5)
    assert (half.of, half.moved) == (quantity, False)
    assert (beyond.of, beyond.moved) == (quantity, True)
    assert str(half).startswith("≈ 0.5")
    assert str(beyond) == f"moved 1.5 {quantity}"


def test_another_index_and_a_nan_are_movement_and_a_zero_of_the_other_sign_is_none(here):
    environment = Environment.read(here)
    other = shifted(environment, KEY, "indices", lambda indices: indices + (np.arange(len(indices)) == 3))
    assert change(KEY, environment, other).moved
    lost = shifted(environment, KEY, "output", lambda values: np.where(values == values.max(), np.nan, values))
    assert change(KEY, environment, lost).moved
    zeros = shifted(environment, KEY, "∂ℓ/∂W", np.zeros_like)
    signed = shifted(zeros, KEY, "∂ℓ/∂W", np.negative)
    assert str(change(KEY, zeros, signed)) == "≈ 0 ∂ℓ/∂W"


def test_what_is_missing_in_one_environment_is_neither_equal_nor_moved(here):
    environment = Environment.read(here)
    without = {**environment.made, KEY: {"lacks": "not implemented for 'Float'"}}
    found = change(KEY, environment, Environment("there", environment.versions, without))
    assert (str(found), found.moved, found.lacks) == ("lacks", False, "not implemented for 'Float'")


def test_a_quantity_that_one_environment_has_no_gradient_for_moved(here, monkeypatch):
    """No gradient is not a gradient that is equal."""
    environment = Environment.read(here)
    made = copy.deepcopy(dict(environment.made))
    del made[KEY]["∂ℓ/∂x"]
    assert change(KEY, environment, Environment("there", environment.versions, made)).moved
    answer = implementation_of("reference.oracle").build(dict(record.cases("float64"))["narrow rotation"].reference)
    case = dict(record.cases("float64"))["narrow rotation"]
    without = answer(case.x, record.starts(case))._replace(gradients=(Gradients(None, None, {}),) * 2)
    assert set(record.quantities(without)) == {"output", "indices", "ℓ"}


def test_the_command_writes_compares_and_fails_where_the_oracle_moved(here, tmp_path):
    """Two files of one environment are equal; one entry of the oracle more, and the run fails and names it."""
    same, moved = tmp_path / "same.json", tmp_path / "moved.json"
    same.write_bytes(here.read_bytes())
    environment = Environment.read(here)
    other = shifted(environment, ORACLE_KEY, "output", lambda values: values + 1)
    record.save(moved, other.versions, other.made)
    done = CliRunner().invoke(app, ["drift", str(here), str(same)])
    assert done.exit_code == 0, done.output
    assert "moved" not in done.output
    done = CliRunner().invoke(app, ["drift", str(here), str(moved)])
    assert done.exit_code == 1
    assert ORACLE_KEY in done.output + done.stderr


@pytest.mark.parametrize("content", [None, "{}", "no JSON"])
def test_what_cannot_be_compared_is_named(here, tmp_path, content):
    other = tmp_path / "other.json"
    if content is not None:
        other.write_text(content, encoding="utf-8")
    done = CliRunner().invoke(app, ["drift", str(here), str(other)])
    assert done.exit_code == 2
    assert "other.json" in "".join((done.output + done.stderr).split())
    assert CliRunner().invoke(app, ["drift", str(here)]).exit_code == 2
