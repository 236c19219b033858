"""The reproduction of issue 177: its formulas, its verdict, its files and exit codes; offline, on the reference."""

import io
import json
import os
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from vq_reference.testing.experiments.issue_177 import reproduce as run
from vq_reference.testing.experiments.issue_177.dynamic import STEPS, Run
from vq_reference.testing.experiments.issue_177.measured import Measured, referenced
from vq_reference.testing.experiments.issue_177.reproduction import judge
from vq_reference.testing.experiments.issue_177.static import (
    BETA,
    BOTH,
    CODEBOOK_ONLY,
    NEITHER,
    Halves,
    Row,
    bound,
    case,
    difference,
    expected,
)
from vq_reference.testing.releases.fetch import Release

ENCODER_ONLY = Halves(codebook=False, encoder=True)
U = 2.0**-24


def _row(subject="any", estimator="rotation", halves=BOTH, **changes):
    """Return the row of an exact implementation whose loss has these halves."""
    value = expected(case(), halves)
    mse = expected(case(), CODEBOOK_ONLY).loss
    return replace(Row(subject, estimator, value.loss, mse, value.x.tolist(), value.W.tolist()), **changes)


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """The command's function, run once for real: exit code, terminal text, folder, and what was measured."""
    out, console, seen = tmp_path_factory.mktemp("out") / "new", Console(file=io.StringIO(), width=100), {}
    right = run.measure

    def watched(subjects, seeds, progress):
        seen["subjects"], seen["measured"] = subjects, right(subjects, seeds, progress)
        return seen["measured"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "measure", watched)
        code = run.reproduce_177(out, offline=True, seeds=(0,), console=console)
    return {"code": code, "text": console.file.getvalue(), "out": out, **seen}


@pytest.fixture
def text():
    return Console(file=io.StringIO(), width=400)


def test_the_fixed_input_leaves_no_doubt_about_the_nearest_code():
    given = case()
    E = given.C @ given.W.T
    squares = ((given.x[..., None, :] - E) ** 2).sum(-1)
    first, second = np.sort(squares, axis=-1)[..., :2].T
    # ‖x‖² − 2x·e + ‖e‖² in any order: 3D + 2 roundings of terms no larger than (‖x‖ + ‖e‖)², at both codes; e itself
    # is a product of length D, which moves the square by 2(‖x‖ + ‖e‖)·γ_D·‖|W||c|‖.
    D = given.x.shape[-1]
    reach = np.linalg.norm(given.x, axis=-1).max() + np.linalg.norm(E, axis=-1).max()
    moved = 2 * reach * D * U * np.linalg.norm(np.abs(given.C) @ np.abs(given.W.T), axis=-1).max()
    assert (second - first).min() > 2 * ((3 * D + 2) * U * reach**2 + moved)


@pytest.mark.parametrize("halves", [BOTH, CODEBOOK_ONLY, ENCODER_ONLY, NEITHER])
def test_gradients_are_the_differences_of_the_loss_in_which_stopped_values_are_constants(halves):
    """A mean square is quadratic, so a central difference of step 1 has no truncation: what is left is rounding."""
    given = case()
    d, c, _ = difference(given)
    value = expected(given, halves)

    def loss(x, W):
        """x moves in the encoder half only, W in the codebook half only."""
        q = c @ given.W.T
        return halves.codebook * np.mean((given.x - c @ W.T) ** 2) + BETA * halves.encoder * np.mean((x - q) ** 2)

    # n + D + 6 roundings in double precision of a loss whose largest value is at the moved points.
    rounding = (d.size + d.shape[-1] + 6) * 2.0**-53
    for name, array, shift in (
        ("x", given.x, lambda e: (given.x + e, given.W)),
        ("W", given.W, lambda e: (given.x, given.W + e)),
    ):
        for index in np.ndindex(array.shape):
            step = np.zeros_like(array)
            step[index] = 1.0
            up, down = loss(*shift(step)), loss(*shift(-step))
            assert abs((up - down) / 2 - getattr(value, name)[index]) <= rounding * (up + down)


@pytest.mark.parametrize("halves", [BOTH, CODEBOOK_ONLY, NEITHER])
def test_a_row_tells_which_halves_its_loss_has(halves):
    assert _row(halves=halves).halves() == halves


def test_the_value_alone_does_not_pass_for_the_halves():
    """β on the wrong half keeps the value: only the gradients tell."""
    right = _row()
    assert replace(right, grad_x=(np.asarray(right.grad_x) / BETA).tolist()).halves() is None
    assert replace(right, grad_transform=(np.asarray(right.grad_transform) * BETA).tolist()).halves() is None
    assert replace(right, grad_x=None).halves() is None


def test_an_error_of_twice_the_bound_is_seen_in_loss_and_in_each_gradient():
    right, within = _row(), bound(case(), BOTH, U)
    worse_x, worse_W = np.asarray(right.grad_x), np.asarray(right.grad_transform)
    worse_x[0, 0, 0] += 2 * within.x[0, 0, 0]
    worse_W[0, 0] -= 2 * within.W[0, 0]
    assert replace(right, loss=right.loss + 2 * within.loss).halves() is None
    assert replace(right, grad_x=worse_x.tolist()).halves() is None
    assert replace(right, grad_transform=worse_W.tolist()).halves() is None


def test_the_bounds_of_two_losses_that_are_told_apart_do_not_meet():
    given = case()
    apart = expected(given, BOTH).loss - expected(given, CODEBOOK_ONLY).loss
    assert apart > bound(given, BOTH, U).loss + bound(given, CODEBOOK_ONLY, U).loss


def _runs(ends, seeds=(0, 1, 2)):
    """Return flat curves that end where `ends` says, by subject and estimator."""
    return [Run(name, e, seed, *3 * [[loss] * STEPS]) for (name, e), loss in ends.items() for seed in seeds]


SUBJECTS = [Measured("bad", CODEBOOK_ONLY, True), Measured("good", BOTH, True)]
ROWS = [
    _row("bad", halves=CODEBOOK_ONLY),
    _row("bad", "straight-through"),
    _row("good"),
    _row("good", "straight-through"),
]
CALM = {(name, e): 1.0 for name in ("bad", "good") for e in ("rotation", "straight-through")}


def test_the_verdict_asks_for_an_order_of_magnitude_beyond_the_spread_of_chance():
    chance = _runs({**CALM, ("bad", "rotation"): 15.0})
    assert judge(SUBJECTS, ROWS, chance).reproduced
    spread = [replace(r, loss=[2.0] * STEPS) if (r.estimator, r.seed) == ("straight-through", 1) else r for r in chance]
    verdict = judge(SUBJECTS, ROWS, spread)
    assert verdict.margin == 2 * judge(SUBJECTS, ROWS, chance).margin
    assert not verdict.reproduced


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({("bad", "rotation"): 1.0}, "bad / good, seed 0: 1 times"),
        ({("bad", "rotation"): float("nan")}, "bad / good, seed 2: nan times"),
        ({("bad", "rotation"): 1e6, ("good", "rotation"): 1e3}, "good, seed 1: rotation / straight-through is 1e+03"),
    ],
)
def test_a_loss_that_does_not_inflate_where_it_should_or_does_where_it_should_not_is_no_reproduction(change, reason):
    verdict = judge(SUBJECTS, ROWS, _runs({**CALM, **change}))
    assert not verdict.reproduced
    assert reason in verdict.sentence


def test_one_seed_below_the_margin_is_no_reproduction():
    runs = _runs({**CALM, ("bad", "rotation"): 1e3})
    one = [
        replace(r, loss=[1.0] * STEPS) if (r.subject, r.estimator, r.seed) == ("bad", "rotation", 1) else r
        for r in runs
    ]
    assert "seed 1: 1 times" in judge(SUBJECTS, ROWS, one).sentence


def test_a_static_row_unlike_what_was_known_is_no_reproduction():
    rows = [_row("bad"), *ROWS[1:]]
    verdict = judge(SUBJECTS, rows, _runs({**CALM, ("bad", "rotation"): 1e3}))
    assert not verdict.reproduced
    assert "bad with rotation shows both where codebook was known" in verdict.sentence


def test_offline_the_mutants_of_the_reference_reproduce_the_bug(offline):
    assert offline["code"] == 0
    assert "Reproduced: " in offline["text"]
    rows, runs = offline["measured"]
    assert {(r.subject, r.estimator): r.halves() for r in rows} == {
        (subject.name, estimator): subject.halves if estimator == "rotation" else BOTH
        for subject in offline["subjects"]
        for estimator in ("rotation", "straight-through")
    }
    assert {len(getattr(r, curve)) for r in runs for curve in ("loss", "norm", "relative_error")} == {STEPS}


def test_a_reproduction_leaves_the_numbers_and_the_picture_and_nothing_else(offline):
    assert sorted(p.name for p in offline["out"].iterdir()) == ["reproduce-177.json", "reproduce-177.png"]
    assert (offline["out"] / "reproduce-177.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((offline["out"] / "reproduce-177.json").read_text("utf-8"))
    rows, runs = offline["measured"]
    assert record["verdict"]["reproduced"] is True
    assert [row["loss"] for row in record["static"]] == [row.loss for row in rows]
    assert [tuple(r["relative_error"]) for r in record["dynamic"]] == [tuple(r.relative_error) for r in runs]
    assert record["versions"]["torch"]


def test_what_does_not_reproduce_exits_1_and_is_written_down(offline, monkeypatch, tmp_path, text):
    """The right reference in the mutant's place."""
    rows, runs = offline["measured"]
    right = [row for row in rows if row.subject == "reference"]
    swapped = [replace(row, subject="mutant 1.20.10") for row in right]
    monkeypatch.setattr(run, "measure", lambda *_: (rows[:2] + swapped + right, runs))
    assert run.reproduce_177(tmp_path, offline=True, console=text) == 1
    assert "Not reproduced" in text.file.getvalue()
    assert json.loads((tmp_path / "reproduce-177.json").read_text("utf-8"))["verdict"]["reproduced"] is False


def test_a_loss_of_nan_is_written_as_null(offline, monkeypatch, tmp_path, text):
    rows, runs = offline["measured"]
    broken = [replace(r, loss=[float("nan")] * STEPS) if r.subject == "reference" else r for r in runs]
    monkeypatch.setattr(run, "measure", lambda *_: (rows, broken))
    assert run.reproduce_177(tmp_path, offline=True, console=text) == 1
    record = json.loads((tmp_path / "reproduce-177.json").read_text("utf-8"), parse_constant=pytest.fail)
    assert record["dynamic"][-1]["loss"][0] is None


def test_without_a_network_it_names_what_could_not_be_fetched_and_exits_2(monkeypatch, tmp_path, text):
    for name, value in {
        "PIP_NO_INDEX": "1",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_FIND_LINKS": "",
        "UV_OFFLINE": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("UV_NO_CACHE", "1")
    monkeypatch.setenv("VQ_REFERENCE_CACHE", str(tmp_path / "cache"))
    assert run.reproduce_177(tmp_path / "out", console=text) == 2
    assert "Could not run: vector-quantize-pytorch==1.20.0 could not be fetched (" in text.file.getvalue()
    assert "--offline" in text.file.getvalue()
    assert not (tmp_path / "out").exists()


def test_a_release_whose_imports_are_missing_exits_2_and_names_the_extra(monkeypatch, tmp_path, text):
    package = tmp_path / "vector_quantize_pytorch"
    package.mkdir()
    package.joinpath("__init__.py").write_text("import a_package_that_nobody_has\n")
    broken = Measured("broken", BOTH, False, Release("vector-quantize-pytorch", "0", tmp_path))
    monkeypatch.setattr(run, "released", lambda: iter([broken]))
    assert run.reproduce_177(tmp_path / "out", console=text) == 2
    assert "broken: ModuleNotFoundError: No module named 'a_package_that_nobody_has'" in text.file.getvalue()
    assert "vq-reference[upstream]" in text.file.getvalue()
    assert not (tmp_path / "out").exists()


def test_a_picture_that_cannot_be_drawn_leaves_no_numbers_behind(offline, monkeypatch, tmp_path, text):
    def fails(*_):
        raise OSError("no font")

    monkeypatch.setattr(run, "measure", lambda *_: offline["measured"])
    monkeypatch.setattr(run, "draw", fails)
    assert run.reproduce_177(tmp_path / "out", offline=True, console=text) == 2
    assert not (tmp_path / "out").exists()


def test_every_mutant_that_stands_for_a_release_still_applies():
    assert sum(subject.mutant is None for subject in referenced()) == 1
    for subject in referenced():
        if subject.mutant:
            with run.MUTANTS[subject.mutant].applied():
                pass
