"""Every case of `cases/` breaks where it is known to be bad, and holds where it is known to be good.

The bad side is the last bad release, or a mutant of the reference; the good side the first good release, and always the
reference. What is written in a case is what the oracle says today.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vq_reference.testing.cases.answers import Fault
from vq_reference.testing.cases.case import PinnedCase, read_all
from vq_reference.testing.cases.expected import expected
from vq_reference.testing.cases.run import on_mutant, on_reference, on_releases
from vq_reference.testing.interface.precision import PRECISIONS
from vq_reference.testing.releases.fetch import ReleaseUnavailable, fetch
from vq_reference.testing.torch_features import SINCE, has, needs

CASES = read_all(Path(__file__).parent / "cases")
PACKAGE = "vector-quantize-pytorch"
HALF = "half-cpu-float16"
# what it imports asks for more than the oldest torch
LATE = "1.32.0"
BAD = {name: case for name, case in CASES.items() if case.last_bad}
GOOD = {name: case for name, case in CASES.items() if case.first_good}
MUTATED = {name: case for name, case in CASES.items() if case.mutant}
# what a flag says of the faults on the bad side
KINDS = {"no_answer", "no_gradient"}

# release → case → its faults; or why the release cannot be had
Found = Mapping[str, Mapping[str, list[Fault]] | str]


@pytest.fixture(scope="module")
def found() -> Found:
    """Run every release that a case names on all of its cases."""
    wanted: dict[str, list[PinnedCase]] = defaultdict(list)
    for case in CASES.values():
        for version in {case.last_bad, case.first_good} - {None}:
            wanted[version].append(case)
    halves = [replace(CASES["cdist-batch"], id=f"half {i}", **half) for i, half in enumerate(_halves())]
    wanted[CASES["cdist-batch"].last_bad] += halves
    jobs, unavailable = [], {}
    for version, cases in wanted.items():
        if version == LATE and not has("newest upstream"):
            continue
        try:
            jobs.append((fetch(f"{PACKAGE}=={version}"), cases))
        except ReleaseUnavailable as reason:
            unavailable[version] = str(reason)
    answers = on_releases(jobs)
    return {**unavailable, **{release.version: answer for (release, _), answer in zip(jobs, answers, strict=True)}}


def _halves() -> list[dict[str, object]]:
    case = CASES["cdist-batch"]
    middle = case.x.shape[1] // 2
    return [
        {
            "x": case.x[:, part],
            "g_output": case.g_output[:, part],
            "expected": {"indices": case.expected["indices"][part]},
            "bound": {"indices": case.bound["indices"][part]},
        }
        for part in (slice(None, middle), slice(middle, None))
    ]


def _of(found: Found, version: str | None, name: str) -> list[Fault]:
    if version == LATE and not has("newest upstream"):
        pytest.xfail("since torch {}: {}".format(*SINCE["newest upstream"]))
    answer = found[str(version)]
    if isinstance(answer, str):
        pytest.skip(f"release not available: {answer}")
    return answer[name]


def _assert_as_flagged(case: PinnedCase, faults: list[Fault]) -> None:
    """Assert that it breaks as the flags say, and not as they deny."""
    kinds = {fault.kind for fault in faults}
    assert kinds & KINDS == set(case.flags) & KINDS, faults
    values_wrong = bool(kinds & {"value", "no_answer"})
    assert values_wrong == ("value_right" not in case.flags), faults


@pytest.mark.parametrize("name", BAD)
def test_a_case_breaks_on_the_last_bad_release(name: str, found: Found) -> None:
    faults = _of(found, BAD[name].last_bad, name)
    assert faults, f"{name} holds on {BAD[name].last_bad}"
    _assert_as_flagged(BAD[name], faults)


@pytest.mark.parametrize("name", GOOD)
def test_a_case_holds_on_the_first_good_release(name: str, found: Found) -> None:
    assert not _of(found, GOOD[name].first_good, name)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[needs("float16")] if name == HALF else []) for name in CASES]
)
def test_a_case_holds_on_the_reference(name: str) -> None:
    assert not on_reference(CASES[name])


@pytest.mark.parametrize("name", MUTATED)
def test_a_case_breaks_on_its_mutant(name: str) -> None:
    case = MUTATED[name]
    faults = on_mutant(case)
    assert faults, f"{name} holds on the mutant {case.mutant}"
    if case.last_bad is None:
        _assert_as_flagged(case, faults)


@pytest.mark.parametrize("name", CASES)
def test_a_case_has_two_sides_and_flags_that_say_which(name: str) -> None:
    case = CASES[name]
    assert case.last_bad or case.mutant
    assert ("open" in case.flags) == bool(case.last_bad and not case.first_good)
    assert ("no_release" in case.flags) == (case.last_bad is None)


@pytest.mark.parametrize("name", CASES)
def test_the_numbers_of_a_case_are_the_oracles(name: str) -> None:
    """A sum may be taken in another order: then and now, each is off by the bound with the oracle's own roundoff."""
    case = CASES[name]
    given = {key: getattr(case, key) for key in ("layer", "flags", "x", "mask", "g_output", "g_losses")}
    numbers = expected({**given, "dtype": "float64"})
    for quantity, value in case.expected.items():
        now, bound = numbers[quantity]
        assert np.all(np.abs(now - value) <= 2 * bound), quantity


@pytest.mark.parametrize("name", CASES)
def test_the_bounds_of_a_case_are_what_the_formulas_derive_today(name: str) -> None:
    """A bound is c·u with c of at least 1, and may be computed as 1 + c·u less 1.

    Then each rounding is one of numbers of about 1: n of them change it by n·2⁻⁵³/u of itself. No case is so large that
    a formula for it has as many as 2¹⁰. Another formula, such as for one operation more, changes c by far more.
    """
    case = CASES[name]
    given = {key: getattr(case, key) for key in ("layer", "flags", "dtype", "x", "mask", "g_output", "g_losses")}
    numbers = expected(given)
    rounding = 2.0**10 * 2.0**-53 / PRECISIONS[case.dtype].unit_roundoff
    for quantity, then in case.bound.items():
        now = np.broadcast_to(numbers[quantity][1], then.shape)
        same = np.where(np.isfinite(then), np.abs(now - then) <= rounding * then, now == then)
        assert same.all(), f"{quantity}: its bound is another one today; see it, and run `vq-check case renew {name}`"


def test_splitting_a_batch_mends_its_indices_in_the_release_that_gets_them_wrong(found: Found) -> None:
    version = CASES["cdist-batch"].last_bad
    assert not _of(found, version, "half 0")
    assert not _of(found, version, "half 1")
