"""The strategies reach the places they name, as seen from the numbers that come out, and shrink to the simplest."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from vq_reference import cosine, nearest
from vq_reference.testing.adapters.ready.oracle import oracle
from vq_reference.testing.interface import subjects
from vq_reference.testing.interface.precision import PRECISIONS
from vq_reference.testing.interface.subjects import EXTREME, OPPOSITE, PLACES, REGULAR, REGULAR_ANGLE, REGULAR_NORMS
from vq_reference.testing.laws.expected.nearest import decided
from vq_reference.testing.laws.law import PROFILES, Law
from vq_reference.testing.laws.strategies import simvq_cases

FORMATS = ["float32", "float64"]


def drawn_by_default(strategy, precision, metric="euclidean"):
    """Return the cases that a law with this strategy gets in a run by default."""
    cases = []
    law = Law(
        "example.of", "must", "", frozenset(), lambda implementation, case: cases.append(case), {"case": strategy}
    )
    law.run(replace(oracle(), precision=PRECISIONS[precision], metric=metric))
    assert len(cases) == PROFILES["default"]
    return cases


def where(x, q, precision):
    """Return which of PLACES the token x, (D,), is at, as seen from its code q: several, or none but "anywhere"."""
    x_norm, q_norm = np.linalg.norm(x), np.linalg.norm(q)
    if not q_norm:
        return {"zero code"} | ({"zero"} if not x_norm else set())
    if not x_norm:
        return {"zero"}
    places = {"anywhere"}
    limits = PRECISIONS[precision]
    places |= {"tiny"} if x_norm < np.sqrt(limits.smallest_normal) else set()
    places |= {"huge"} if x_norm > np.sqrt(limits.largest) / 8 else set()
    x_hat, q_hat = x / x_norm, q / q_norm
    away, apart = np.linalg.norm(x_hat + q_hat), np.linalg.norm(x_hat - q_hat)
    rounding = 4 * limits.unit_roundoff
    if np.array_equal(x, q):
        places.add("on the code")
    elif apart <= rounding:
        places.add("along the code")
    elif away <= rounding:
        places.add("opposite")
    elif away < 2 * np.cos(REGULAR_ANGLE / 2) - rounding:
        places.add("nearly opposite")
    elif apart > rounding:
        places.add("at an angle")
    return places


def reached(cases, precision):
    """Count the places of all tokens, as seen from the code that each selects, and exact ties of different codes."""
    counted = Counter()
    for case in cases:
        rows = nearest.distances(case.x, case.codes)
        for x, row in zip(case.x, rows, strict=True):
            counted.update(where(x, case.codes[row.argmin()], precision))
            equally_near = {tuple(code) for code in case.codes[row == row.min()]}
            counted["tie"] += len(equally_near) > 1
    return counted


@pytest.mark.parametrize("precision", FORMATS)
@pytest.mark.parametrize("places", [REGULAR, OPPOSITE, EXTREME, OPPOSITE + EXTREME, PLACES], ids=len)
def test_every_place_is_reached_by_the_default_number_of_examples(places, precision):
    counted = reached(drawn_by_default(simvq_cases.cases("rotation", places), precision), precision)
    assert not [place for place in places if not counted[place]], counted


@pytest.mark.parametrize("precision", FORMATS)
def test_two_different_codes_are_equally_near_to_a_regular_token(precision):
    assert reached(drawn_by_default(simvq_cases.cases(places=REGULAR), precision), precision)["tie"]


@pytest.mark.parametrize("precision", FORMATS)
def test_regular_places_are_of_regular_lengths_and_angles(precision):
    slack = 1 + 4 * PRECISIONS[precision].unit_roundoff
    for case in drawn_by_default(simvq_cases.cases(places=REGULAR), precision):
        lengths = np.linalg.norm(case.x, axis=1)
        # halfway between two codes a token may be shorter than either; so short that it is put on a code, it is not
        assert np.all((lengths >= REGULAR_NORMS[0] / 2 / slack) & (lengths <= REGULAR_NORMS[1] * slack))
        assert case.codes.any(axis=1).all()


@pytest.mark.parametrize("strategy", [simvq_cases.cases(), simvq_cases.crowds(), simvq_cases.transform_cases(layers=1)])
def test_one_of_everything_and_more_is_drawn(strategy):
    cases = drawn_by_default(strategy, "float32")
    for size in (lambda case: len(case.x), lambda case: len(case.codes)):
        sizes = {size(case) for case in cases}
        assert 1 in sizes
        assert max(sizes) > 2
    assert {case.reference.estimator for case in cases} == {"straight_through", "rotation"}


def test_one_dimension_is_drawn_where_it_is_asked_for():
    assert {case.x.shape[1] for case in drawn_by_default(simvq_cases.cases(dims=(1, 1)), "float32")} == {1}
    assert {case.x.shape[1] for case in drawn_by_default(simvq_cases.cases(), "float32")} > {2, 6}


def test_codes_are_drawn_twice():
    cases = drawn_by_default(simvq_cases.cases(), "float32")
    assert any(len(np.unique(case.codes, axis=0)) < len(case.codes) for case in cases)


def test_crowds_stand_on_both_sides_of_25_rows_at_every_offset():
    cases = drawn_by_default(simvq_cases.crowds(), "float32")
    seen = {(max(len(c.x), len(c.codes)) > 25, float(10.0 ** np.round(np.log10(abs(c.codes.mean()))))) for c in cases}
    assert {(many, offset) for many in (True, False) for offset in (10.0, 1000.0)} <= seen
    assert any(offset < 10 for many, offset in seen if many)
    assert any(offset < 10 for many, offset in seen if not many)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("precision", FORMATS)
def test_near_ties_are_nearer_than_half_precision_tells_and_farther_than_the_declared_one_needs(precision, metric):
    gaps = []
    for case in drawn_by_default(simvq_cases.near_ties(), precision, metric):
        compared = [case.x, case.codes] if metric == "euclidean" else [cosine.unit(case.x), cosine.unit(case.codes)]
        squares = np.sort(nearest.distances(*compared) ** 2, axis=1)
        gaps += [(row[1] - row[0]) / row[1] for row in squares if row[1]]
    half, declared = PRECISIONS["float16"].unit_roundoff, 64 * PRECISIONS["float32"].unit_roundoff
    assert sum(declared < gap < half for gap in gaps) > PROFILES["default"] / 2


def test_large_codebooks_go_a_little_beyond_every_power_of_two_and_the_last_code_is_a_token():
    cases = drawn_by_default(simvq_cases.large_codebooks(), "float32")
    assert {len(case.codes).bit_length() for case in cases} == {6, 7, 8, 9, 11}
    assert all(np.array_equal(case.x[-1], case.codes[-1]) for case in cases)


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_of_most_large_codebooks_the_last_code_is_told_from_the_others_by_any_precision(precision):
    implementation = replace(oracle(), precision=PRECISIONS[precision])
    cases = [case for case in drawn_by_default(simvq_cases.large_codebooks(), precision) if len(case.codes) > 256]
    assert sum(decided(implementation, case)[-1] for case in cases) > len(cases) / 2


@pytest.mark.parametrize("precision", FORMATS)
@pytest.mark.parametrize(
    "strategy",
    [
        simvq_cases.near_ties(),
        simvq_cases.large_codebooks(),
        simvq_cases.cases(places=PLACES),
        simvq_cases.crowds(),
        simvq_cases.transform_cases(layers=3),
    ],
)
def test_every_number_is_representable_and_no_transform_rounds(strategy, precision):
    rounded = PRECISIONS[precision].round
    for case in drawn_by_default(strategy, precision):
        np.testing.assert_array_equal(rounded(case.x), case.x)
        np.testing.assert_array_equal(rounded(case.codes), case.codes)
        np.testing.assert_array_equal(rounded(case.reference.frozen_codebook), case.reference.frozen_codebook)
        narrow = case.reference.frozen_codebook.astype(precision)
        for i, layer in enumerate(case.reference.transform):
            narrow = narrow @ layer.weight.T.astype(precision)
            narrow = narrow if layer.bias is None else narrow + layer.bias.astype(precision)
            narrow = narrow if i == len(case.reference.transform) - 1 else np.maximum(narrow, 0)
        np.testing.assert_array_equal(narrow, case.codes)


def test_no_transform_is_the_identity():
    for case in drawn_by_default(simvq_cases.cases(), "float32"):
        weight = case.reference.transform[0].weight
        assert np.max(np.abs(weight)) != 1
        np.testing.assert_array_equal(weight @ weight.T, np.max(np.abs(weight)) ** 2 * np.eye(len(weight)))


def test_cotangents_differ_in_every_entry_of_a_token_and_are_nowhere_zero():
    for case in drawn_by_default(simvq_cases.cases(), "float32"):
        for seed in (0, 7, 15):
            g = subjects.cotangents(case, seed)
            assert g.all()
            assert all(len(set(row)) == len(row) for row in g)
            np.testing.assert_array_equal(PRECISIONS["float16"].round(g), g)


def test_a_case_shrinks_to_one_token_one_code_and_the_usual_weights():
    # hypothesis begins with what everything shrinks to
    case = drawn_by_default(simvq_cases.cases(), "float32")[0]
    assert (len(case.x), len(case.codes), case.x.shape[1]) == (1, 1, 2)
    assert (case.reference.estimator, case.reference.beta) == ("straight_through", 0.25)
    assert case.reference.commitment_weight == 1.0
    crowd = drawn_by_default(simvq_cases.crowds(), "float32")[0]
    assert (len(crowd.x), len(crowd.codes), crowd.x.shape[1]) == (1, 1, 2)
    deep = drawn_by_default(simvq_cases.transform_cases(layers=2), "float32")[0]
    assert [layer.weight.shape for layer in deep.reference.transform] == [(1, 1), (2, 1)]
