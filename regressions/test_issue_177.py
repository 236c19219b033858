"""The commitment loss of SimVQ with the rotation: 1.20.0 had none, 1.20.1 to 1.20.10 left out the encoder half.

https://github.com/lucidrains/vector-quantize-pytorch/issues/177; first bad 1.20.0, first good 1.20.11. Measured on the
released wheels, each in a process of its own. Every row is compared with the formulas of
`vq_reference.testing.experiments.issue_177.static`, loss and whole gradients; no measured number is written down here.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.progress import Progress

from vq_reference.testing.experiments.issue_177.dynamic import Run
from vq_reference.testing.experiments.issue_177.measure_all import measure
from vq_reference.testing.experiments.issue_177.measured import Measured, released
from vq_reference.testing.experiments.issue_177.reproduction import judge
from vq_reference.testing.experiments.issue_177.static import (
    BETA,
    BOTH,
    CODEBOOK_ONLY,
    NEITHER,
    Row,
    bound,
    case,
    expected,
)
from vq_reference.testing.releases.fetch import ReleaseUnavailable
from vq_reference.testing.torch_features import has, needs

SEEDS = (0, 1, 2)
NEWEST = pytest.param("newest", marks=needs("newest upstream"))


@pytest.fixture(scope="module")
def subjects() -> list[Measured]:
    """Fetch the releases. The newest is not trained here: `vq-check reproduce 177` does that too."""
    try:
        *named, newest = released()
    except ReleaseUnavailable as reason:
        pytest.skip(f"release not available: {reason}")
    return [*named, *([replace(newest, name="newest", trained=False)] if has("newest upstream") else [])]


@pytest.fixture(scope="module")
def measured(subjects: list[Measured]) -> tuple[list[Row], list[Run]]:
    """Measure all of them once."""
    return measure(subjects, SEEDS, Progress(disable=True))


@pytest.fixture(scope="module")
def rows(measured: tuple[list[Row], list[Run]]) -> dict[tuple[str, str], Row]:
    """Give the static rows by release and estimator."""
    return {(row.subject, row.estimator): row for row in measured[0]}


def test_in_1_20_0_the_rotation_has_no_loss_and_no_gradient(rows: dict[tuple[str, str], Row]) -> None:
    """The loss was the constant 0, with no graph behind it."""
    row = rows["1.20.0", "rotation"]
    assert row.halves() == NEITHER
    assert row.grad_x is None
    assert row.grad_transform is None


@pytest.mark.parametrize("release", ["1.20.1", "1.20.10"])
def test_before_1_20_11_the_rotation_loses_the_encoder_half(rows: dict[tuple[str, str], Row], release: str) -> None:
    """The loss is the mean square alone and hands the encoder no gradient; the transform's is right."""
    row = rows[release, "rotation"]
    assert row.halves() == CODEBOOK_ONLY
    assert row.grad_x is None


@pytest.mark.parametrize("release", ["1.20.11", NEWEST])
def test_since_1_20_11_the_rotation_has_both_halves(rows: dict[tuple[str, str], Row], release: str) -> None:
    """Loss, ∂ℓ/∂x and ∂ℓ/∂W are those of the formula."""
    assert rows[release, "rotation"].halves() == BOTH


@pytest.mark.parametrize("release", ["1.20.0", "1.20.1", "1.20.10", "1.20.11", NEWEST])
def test_straight_through_has_both_halves_in_every_release(rows: dict[tuple[str, str], Row], release: str) -> None:
    """The fault was in the branch of the rotation only."""
    assert rows[release, "straight-through"].halves() == BOTH


def test_at_equal_parameters_the_faulty_loss_is_smaller_by_one_over_one_plus_beta(
    rows: dict[tuple[str, str], Row],
) -> None:
    """The bound is that of a quotient: the relative errors of both losses, to first order."""
    faulty, right = rows["1.20.10", "rotation"], rows["1.20.11", "rotation"]
    given, u = case(), 2.0**-24
    relative = sum(bound(given, h, u).loss / expected(given, h).loss for h in (CODEBOOK_ONLY, BOTH))
    assert faulty.loss / right.loss * (1 + BETA) == pytest.approx(1, rel=0, abs=relative)


def test_in_training_the_missing_half_inflates_the_loss_beyond_the_margin_for_every_seed(
    subjects: list[Measured], measured: tuple[list[Row], list[Run]]
) -> None:
    """1.20.10 against 1.20.11, same weights and batches: see the verdict's docstring for the margin."""
    verdict = judge(subjects, *measured)
    assert len(verdict.ratios) == len(SEEDS)
    assert min(verdict.ratios.values()) >= verdict.margin
    assert verdict.reproduced, verdict.sentence
