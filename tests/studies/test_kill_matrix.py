"""The kill matrix: the page is that of its data, every mutant is killed, every law kills, and a run can be resumed."""

from pathlib import Path

import pytest

from studies.kill_matrix.cells import PLAIN, SHRUNK, Job, do, jobs, load, record, tidy
from studies.kill_matrix.page import page
from studies.kill_matrix.plain_tools import KILLS, PASSES, REJECTS_RIGHT, plain
from vq_reference.testing.laws.registry import laws
from vq_reference.testing.mutants import MUTANTS

DOCS = Path(__file__).parents[2] / "docs"
RENEW = "run `python -m studies.kill_matrix --minutes 10`"


@pytest.fixture(scope="module")
def rows():
    return load(DOCS / "data" / "kill-matrix.jsonl")


def test_every_mutant_is_killed_by_the_law_that_it_names_and_every_law_kills(rows):
    alive = [name for name, row in rows.items() if MUTANTS[name].killed_by not in row.killers]
    assert not alive, RENEW
    assert set(laws()) == {law for row in rows.values() for law in row.killers}, RENEW


def test_plain_tools_and_the_smallest_input_are_known_of_every_mutant(rows):
    assert not [name for name, row in rows.items() if not {PLAIN, SHRUNK} <= row.done], RENEW


def test_the_page_is_made_of_the_data(rows):
    assert (DOCS / "kill-matrix.md").read_text("utf-8") == page(rows), RENEW


def test_what_was_found_is_found_again_but_not_of_another_fault_or_law(tmp_path, monkeypatch):
    path, job = tmp_path / "cells.jsonl", Job("reflection", MUTANTS["reflection"].killed_by)
    record(path, *do(job))
    assert load(path)["reflection"].killers.keys() == {job.what}
    monkeypatch.setattr("studies.kill_matrix.cells.mark_of_law", lambda law: "another")
    assert not load(path)["reflection"].done
    tidy(path, load(path))
    assert not path.read_text("utf-8")


def test_what_every_mutant_needs_comes_first():
    order = list(jobs())
    assert [job.mutant for job in order[: len(MUTANTS)]] == list(MUTANTS)
    assert len(order) == len(set(order))


@pytest.mark.parametrize(
    ("name", "tool", "verdict"),
    [
        ("distance-by-huber", "loss value", KILLS),
        ("beta-on-the-codebook-half", "loss value", PASSES),
        ("beta-on-the-codebook-half", "gradcheck of the loss", REJECTS_RIGHT),
        ("output-in-eight-bits", "smoke test", KILLS),
        ("reflection", "smoke test", PASSES),
    ],
)
def test_a_plain_tool_sees_what_it_can_see(name, tool, verdict):
    assert plain(name)[tool] == verdict
