"""A law: how it is declared, run, and found; the same examples each time, and others on request."""

import dataclasses
import importlib
import itertools
import sys

import numpy as np
import pytest
import torch
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.internal.conjecture.engine import ConjectureRunner
from unusual_targets import TARGETS

from vq_reference.testing.adapters.ready.oracle import oracle
from vq_reference.testing.interface import subjects
from vq_reference.testing.interface.implementation import CAPABILITIES, FOLLOWING
from vq_reference.testing.interface.precision import PRECISIONS
from vq_reference.testing.laws import hypothesis_patches
from vq_reference.testing.laws import law as law_module
from vq_reference.testing.laws.assertions import LawBroken, assert_within
from vq_reference.testing.laws.law import PROFILES, Law, law
from vq_reference.testing.laws.registry import laws
from vq_reference.testing.laws.strategies import simvq_cases
from vq_reference.testing.laws.verdict import Verdict
from vq_reference.testing.run.judge import judge

ORACLE = oracle()


@pytest.fixture(autouse=True)
def _no_law_outlives_its_test(monkeypatch):
    monkeypatch.setattr(law_module, "LAWS", dict(law_module.LAWS))


def law_of(check, **draws):
    return Law("example.law", "must", "a source", frozenset(), check, draws)


def drawn(seed=None, profile="default", name="check"):
    seen = []

    def check(implementation, number):
        seen.append(number)

    check.__name__ = name
    law_of(check, number=st.integers()).run(ORACLE, profile, seed)
    return seen


def test_a_law_draws_the_same_examples_each_time():
    assert drawn() == drawn()


def test_what_else_is_imported_does_not_change_what_is_drawn(tmp_path, monkeypatch):
    """Hypothesis reads numbers in the source of loaded modules, and draws them, too."""
    alone = drawn(profile="thorough")
    (tmp_path / "full_of_numbers.py").write_text(f"NUMBERS = {list(range(1000, 1400))}", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "full_of_numbers", importlib.import_module("full_of_numbers"))
    assert drawn(profile="thorough") == alone


def test_a_climb_does_not_begin_the_same_hopeless_examples_again(monkeypatch):
    """At this seed hypothesis began fifty thousand examples of too few choices, 280 seconds of them, and drew 493."""
    begun, begin = itertools.count(), ConjectureRunner.test_function

    def few(self, data):
        if next(begun) > 2 * PROFILES["thorough"]:
            pytest.fail("it begins more than it draws")
        begin(self, data)

    monkeypatch.setattr(ConjectureRunner, "test_function", few)
    outcome, _ = judge(laws()["loss.codebook_half"], TARGETS["beta_on_the_codebook_half"](), "thorough", 2)
    assert (outcome.verdict, outcome.examples) == (Verdict.HELD, PROFILES["thorough"])


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("CONSTANTS", ("no_such_module", "Constants")),
        ("CONSTANTS", ("constants_ast", "NoSuchClass")),
        ("PROVIDERS", ("conjecture.providers", "no_such_function", "CONSTANTS_CACHE")),
        ("PROVIDERS", ("conjecture.providers", "_get_local_constants", "NO_SUCH_CACHE")),
        ("RUNNER", ("conjecture.engine", "NoSuchRunner", "Overrun")),
        ("RUNNER", ("conjecture.no_such_module", "ConjectureRunner", "Overrun")),
        ("METHODS", ("cached_test_function", "no_such_method")),
    ],
)
def test_a_hypothesis_that_lacks_what_it_has_no_setting_for_draws_in_its_own_way(where, names, monkeypatch):
    monkeypatch.setattr(hypothesis_patches, where, names)
    assert len(drawn()) == PROFILES["default"]
    with pytest.raises(LawBroken, match="number is 42, expected 0 within 41"):
        law_of(lambda _, number: assert_within("number", number, 0, 41), number=st.integers()).run(ORACLE)


def test_this_hypothesis_has_all_of_it_and_gets_it_back():
    """Else the two tests above would say so, each in its own way."""
    places = [
        hypothesis_patches._found(*names)
        for names in (hypothesis_patches.CONSTANTS, hypothesis_patches.PROVIDERS, hypothesis_patches.RUNNER)
    ]
    assert all(places)
    before = dict(vars(ConjectureRunner))
    with hypothesis_patches.draws_of_its_own():
        assert [name for name in hypothesis_patches.METHODS if vars(ConjectureRunner)[name] is not before[name]] == [
            "cached_test_function"
        ]
    assert dict(vars(ConjectureRunner)) == before


def test_a_seed_explores_other_examples_and_the_same_seed_the_same_ones():
    assert drawn(seed=1) == drawn(seed=1)
    assert len({tuple(drawn(seed)) for seed in (None, 1, 2)}) == 3


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_says_how_many_examples(profile):
    assert len(drawn(profile=profile)) == PROFILES[profile]


def test_a_law_returns_the_largest_margin_of_each_quantity():
    def check(implementation, number):
        assert_within("twice", 2.0 * number, 0.0, 20.0)
        assert_within("once", float(number), 0.0, 20.0)

    assert law_of(check, number=st.integers(-7, 10)).run(ORACLE) == {"twice": 1.0, "once": 0.5}


def test_a_law_that_draws_nothing_is_checked_once():
    calls = []
    assert law_of(lambda implementation: calls.append(implementation)).run(ORACLE) == {}
    assert calls == [ORACLE]


def test_a_broken_law_ends_on_the_smallest_example_and_carries_it():
    def check(implementation, number, other):
        assert_within("number", number, 0, 41)

    with pytest.raises(LawBroken, match="number is 42, expected 0 within 41") as broken:
        law_of(check, number=st.integers(), other=st.integers()).run(ORACLE)
    assert broken.value.drawn == {"number": 42, "other": 0}


def test_what_the_implementation_raises_passes_through_with_its_example():
    def check(implementation, number):
        if number > 9:
            raise RuntimeError("fell over")

    with pytest.raises(RuntimeError, match="fell over") as crashed:
        law_of(check, number=st.integers()).run(ORACLE)
    assert crashed.value.drawn == {"number": 10}


def test_an_assumption_that_does_not_hold_is_no_failure():
    def check(implementation, number):
        assume(number % 2 == 0)

    law_of(check, number=st.integers()).run(ORACLE)


def test_numbers_are_drawn_in_the_implementations_dtype_and_no_longer():
    seen = set()

    def check(implementation, case):
        seen.add(subjects.precision.get().name)
        for name in seen:
            np.testing.assert_array_equal(PRECISIONS[name].round(case.x), case.x)

    before = subjects.precision.get()
    half = dataclasses.replace(ORACLE, precision=PRECISIONS["float16"])
    law_of(check, case=simvq_cases.cases()).run(half)
    assert seen == {"float16"}
    assert subjects.precision.get() is before


def test_a_declared_law_is_a_pytest_function_of_the_implementation_alone():
    @law("example.declared", level="should", source="here", needs={"loss"}, number=st.integers())
    def test_numbers_are_numbers(implementation, number):
        """Every number is a number.

        And more, that is not its sentence.
        """

    assert test_numbers_are_numbers.__name__ == "test_numbers_are_numbers"
    declared = test_numbers_are_numbers.law
    assert law_module.LAWS["example.declared"] is declared
    assert (declared.level, declared.source, declared.needs) == ("should", "here", {"loss"})
    assert declared.sentence == "Every number is a number."
    test_numbers_are_numbers(ORACLE)


def test_a_law_without_a_sentence_is_refused():
    with pytest.raises(ValueError, match=r"law example\.silent has no sentence: give check a docstring"):

        @law("example.silent", level="must", source="")
        def check(implementation):
            pass


def test_an_id_is_never_reused():
    @law("example.taken", level="must", source="")
    def first(implementation):
        """One."""

    with pytest.raises(ValueError, match=r"law id example\.taken is taken by first: ids are never reused"):

        @law("example.taken", level="must", source="")
        def second(implementation):
            """Another."""


@pytest.mark.parametrize("each", laws().values(), ids=lambda each: each.id)
def test_every_law_can_be_read_by_an_outsider(each):
    family, name = each.id.split(".")
    assert family.replace("_", "a").isalpha()
    assert name.replace("_", "a").isalnum()
    assert each.sentence.endswith(".")
    assert each.sentence[0].isupper()
    assert each.source
    assert each.level in ("must", "should")
    assert each.needs <= {*CAPABILITIES, *FOLLOWING}


def test_laws_are_listed_in_the_order_of_their_ids():
    assert list(laws()) == sorted(laws())


def test_a_thread_that_flushes_subnormal_numbers_is_given_them_back():
    """Some compiled code switches them off for its process: without them hypothesis cannot draw a float."""
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor has no such switch")
    smallest_normal = sys.float_info.min
    assert smallest_normal / 2 == 0
    laws()["loss.formula"].run(ORACLE, "quick")
    assert smallest_normal / 2 > 0
