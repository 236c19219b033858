"""Estimators written in JAX: no torch in them, the same laws."""

import importlib.util
import subprocess
import sys
from dataclasses import replace

import pytest

from vq_reference.testing.describe.adapter_check import contradictions
from vq_reference.testing.laws.registry import laws
from vq_reference.testing.laws.verdict import Verdict
from vq_reference.testing.run.judge import judge
from vq_reference.testing.run.targets import implementation_of, object_of

pytestmark = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed: tox -e jax")
# J = λR by the formula of the paper, which loses its digits near opposite directions, and is no code at x = 0
KNOWN = {
    "adapter": {"output.extreme", "output.one_dimension"},
    "rotation": {"output.extreme", "output.one_dimension", "rotation.opposite", "rotation.finite", "gradient.finite"},
}


@pytest.fixture(scope="module")
def example(pytestconfig):
    return pytestconfig.rootpath / "examples" / "jax_estimator.py"


@pytest.mark.parametrize("function", ["adapter", "rotation"])
def test_an_estimator_in_jax_does_what_it_declares(function, example):
    assert contradictions(implementation_of(f"{example}:{function}")) == []


@pytest.mark.parametrize("function", ["adapter", "rotation"])
def test_an_estimator_in_jax_keeps_every_must_law_that_applies(function, example):
    tested = implementation_of(f"{example}:{function}")
    ended = [judge(law, tested, "quick", None)[0] for law in laws().values()]
    not_held = {o.law: o.level for o in ended if o.verdict not in (Verdict.HELD, Verdict.NOT_APPLICABLE)}
    assert "must" not in not_held.values(), not_held
    assert set(not_held) <= KNOWN[function]
    family = {"adapter": "straight_through.", "rotation": "rotation."}[function]
    assert sum(o.law.startswith(family) and o.verdict is Verdict.HELD for o in ended) >= 2


def test_an_estimator_in_jax_that_is_wrong_is_seen(example):
    import jax.numpy as jnp

    wrong = object_of(f"{example}:jax_estimator")(lambda x, q: q + jnp.zeros_like(x), "straight_through")
    outcome, _ = judge(laws()["straight_through.identity"], replace(wrong, name="wrong"), "quick", None)
    assert outcome.verdict is Verdict.BROKEN


def test_the_script_of_an_estimator_in_jax_shows_the_bug_and_holds_where_it_is_mended(example, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    right, file = example.read_text("utf-8"), tmp_path / "rotation_in_jax.py"
    file.write_text(right.replace("+ 2 * q_hat", "- 2 * q_hat"), encoding="utf-8")
    outcome, _ = judge(laws()["rotation.proper"], implementation_of(f"{file}:rotation"), "quick", None)
    assert outcome.counterexample.script, outcome.counterexample.no_script
    (tmp_path / "reported.py").write_text(outcome.counterexample.script, encoding="utf-8")

    def alone():
        return subprocess.run([sys.executable, "reported.py"], capture_output=True, encoding="utf-8", cwd=tmp_path)

    assert alone().returncode == 1
    file.write_text(right, encoding="utf-8")
    mended = alone()
    assert (mended.returncode, mended.stdout.splitlines()[-1]) == (0, "holds")
