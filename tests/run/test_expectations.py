"""Expectations: what may break, why, and on which versions; nothing that holds stays on the list."""

import datetime

import pytest

from vq_reference.testing.laws.registry import laws
from vq_reference.testing.laws.verdict import Outcome, Verdict
from vq_reference.testing.reporting.results import Plan, Result
from vq_reference.testing.run.expectations import ExpectationsRefused, draft, expect, load, shipped

LAW, OTHER = "loss.encoder_half", "loss.formula"
TODAY = datetime.date(2026, 1, 1)
VERSIONS = {"Some_Package": "1.20.10", "torch": "2.4.0+cpu", "python": "3.11.7"}


@pytest.fixture
def file(tmp_path):
    """Write the file that a test loads."""

    def written(text):
        path = tmp_path / "expected.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return written


def judged(
    path, verdict=Verdict.BROKEN, target="some.Target[a mode]", versions=VERSIONS, today=TODAY, profile="default"
):
    broken = Outcome(LAW, "must", "…", verdict, "off by one")
    (outcome,) = expect([broken], load(path, laws()), target, versions, profile, today)
    return outcome


@pytest.mark.parametrize("verdict", [Verdict.BROKEN, Verdict.CRASHED])
def test_a_law_that_breaks_as_expected_fails_no_run_and_keeps_its_reason(file, verdict):
    """The verdict says that it was expected, and the report why."""
    outcome = judged(file(f'["{LAW}"]\nreason = "a known fault"\nlink = "https://example.org/1"'), verdict)
    assert outcome.verdict is Verdict.EXPECTED
    assert outcome.expectation == "a known fault https://example.org/1"
    assert not outcome.fails(strict=True)


def test_an_expected_break_that_holds_fails_the_run(file):
    """Else the list would only grow."""
    outcome = judged(file(f'["{LAW}"]\nreason = "a known fault"'), Verdict.HELD)
    assert outcome.verdict is Verdict.HELD
    assert outcome.fails(strict=False)


def test_an_expected_break_that_few_examples_do_not_show_fails_nothing(file):
    """The quick profile draws fifteen: some faults need more."""
    path = file(f'["{LAW}"]\nreason = "a known fault"')
    assert not judged(path, Verdict.HELD, profile="quick").fails(strict=True)
    assert judged(path, Verdict.BROKEN, profile="quick").verdict is Verdict.EXPECTED


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ('when = { some-package = ">=1.20.1, <1.20.11" }', True),
        ('when = { some-package = ">=1.20.11" }', False),
        ('when = { some-package = ">=1.20.1", python = ">=3.12" }', False),
        ('when = { torch = ">=2.4" }', True),
        ('when = { not-tested = ">=1" }', False),
        ('target = "some.*"', True),
        ('target = "some.Target[a mode]"', True),
        ('target = "other.*"', False),
        ("expires = 2026-01-02", True),
        ("expires = 2026-01-01", False),
    ],
)
def test_a_break_is_expected_only_where_every_condition_is_met(file, condition, expected):
    """Versions of packages and of Python, the target, and a day on which it ends."""
    outcome = judged(file(f'["{LAW}"]\nreason = "a known fault"\n{condition}'))
    assert (outcome.verdict is Verdict.EXPECTED) == expected
    assert outcome.fails(strict=False) != expected


def test_a_law_may_be_expected_to_break_for_several_reasons(file):
    """Each with its versions."""
    entries = [("==1.0", "the first"), ("==1.20.10", "the second")]
    text = "\n".join(
        f'[["{LAW}"]]\nreason = "{reason}"\nwhen = {{ some-package = "{when}" }}' for when, reason in entries
    )
    assert judged(file(text)).expectation == "the second"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('["loss.encoder_hafl"]\nreason = "x"', "did you mean loss.encoder_half?"),
        ('["no.such"]\nreason = "x"', "`vq-check laws` lists them"),
        (f'["{LAW}"]\nlink = "x"', "reason is missing"),
        (f'["{LAW}"]\nreason = "  "', "reason is missing"),
        (f'["{LAW}"]\nreason = 1', "reason is 1: expected a string"),
        (f'["{LAW}"]\nreason = "x"\nuntil = 2026-01-01', "until: expected some of"),
        (f'["{LAW}"]\nreason = "x"\nexpires = "soon"', "expires is 'soon': expected a date"),
        (f'["{LAW}"]\nreason = "x"\nwhen = "1.0"', "when is '1.0': expected a table"),
        (f'["{LAW}"]\nreason = "x"\nwhen = {{ torch = "new" }}', "when: Invalid specifier"),
        (f'"{LAW}" = "x"', "expected a table"),
        ("[", "expected.toml"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_and_says_why(file, text, said):
    """A name that was misspelt would expect nothing, silently."""
    with pytest.raises(ExpectationsRefused) as refused:
        load(file(text), laws())
    assert said in str(refused.value)


def test_a_missing_file_is_refused(tmp_path):
    """By its name."""
    with pytest.raises(ExpectationsRefused, match="nowhere"):
        load(tmp_path / "nowhere.toml", laws())


def test_a_draft_asks_for_its_reasons_and_is_accepted_with_them(file):
    """It names target, law and version; the reason is what nobody can draft."""
    outcomes = [Outcome(LAW, "must", "…", Verdict.BROKEN, "off by one"), Outcome(OTHER, "must", "…", Verdict.HELD)]
    drafted = draft([Result(Plan("some.Target[a mode]", (LAW, OTHER)), VERSIONS, outcomes)])
    with pytest.raises(ExpectationsRefused, match="reason is missing"):
        load(file(drafted), laws())
    path = file(drafted.replace('reason = ""', 'reason = "a known fault"'))
    assert [expectation.law for expectation in load(path, laws())] == [LAW]
    assert judged(path).verdict is Verdict.EXPECTED
    assert judged(path, versions={**VERSIONS, "Some_Package": "1.20.11"}).verdict is Verdict.BROKEN
    assert judged(path, versions={**VERSIONS, "torch": "2.5.0"}).verdict is Verdict.EXPECTED


def test_what_is_shipped_is_accepted_by_its_name():
    """Each shipped expectation names a link and the versions that have the fault."""
    for name, path in shipped().items():
        found = load(type(path)(name), laws())
        assert found
        assert all(expectation.link and expectation.when for expectation in found)
