"""The page about the inflated loss says what its runs measured, and the runs do what the page says."""

from __future__ import annotations

import copy
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import vq_reference.rotation as oracle
from studies.evidence import page, record, speech, verdicts
from studies.evidence.questions import Runs
from studies.evidence.training import Setting, train
from vq_reference.nn import SimVQ
from vq_reference.testing.experiments.issue_177.measured import MUTANTS

ROOT = Path(__file__).parents[2]
TEMPLATES = [ROOT / "studies" / "evidence" / name for name in page.TEMPLATES.values()]


@pytest.fixture(scope="module")
def data():
    return page.load()


def test_the_pages_say_what_the_runs_measured(data):
    for path, text in page.render(data).items():
        committed = page.part(text) if path == page.README else path.read_text(encoding="utf-8")
        assert text == committed, f"{path.name} is stale: python -m studies.evidence --no-run"


@pytest.mark.parametrize("experiment", ["accuracy", "benchmark", "claims", "runs", "silence", "versions"])
def test_other_numbers_make_another_page(data, experiment):
    """Each float of an experiment is halved: a page that stays the same quotes nothing from it."""

    def halved(value):
        if isinstance(value, dict):
            return {key: halved(item) for key, item in value.items()}
        if isinstance(value, list):
            return [halved(item) for item in value]
        return value / 2 if isinstance(value, float) else value

    changed = copy.deepcopy(data)
    changed[experiment] = halved(changed[experiment])
    if experiment == "runs":  # settings are what runs are found by
        for run, right in zip(changed["runs"]["runs"], data["runs"]["runs"], strict=True):
            run["weight"] = right["weight"]
    if experiment == "versions":  # it has no floats: a release more breaks a law
        changed["versions"]["releases"][-1]["must"] = ["loss.formula"]
    assert page.render(changed) != page.render(data)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_no_measured_number_is_written_into_the_text_by_hand(template):
    """Decimals, powers of ten and multiples stand in {{ }}; releases, links and names of papers may be written."""
    text = re.sub(r"\{[{%#].*?[}%#]\}", "", template.read_text(encoding="utf-8"), flags=re.DOTALL)
    text = re.sub(r"\(https?://[^)]*\)|arXiv \d+\.\d+|§\d+\.\d+|\d+\.\d+\.\d+", "", text)
    assert not re.findall(r"\d+\.\d+|10[⁻⁰¹²³⁴-⁹]|\d+ (?:times|%)|×\s*\d", text)


def test_every_figure_of_the_pages_is_there_and_every_figure_is_shown():
    shown = set()
    for template in TEMPLATES:
        shown |= set(re.findall(r"figures/([\w-]+\.png)", template.read_text(encoding="utf-8")))
    assert shown == {path.name for path in record.FIGURES.glob("*.png")}


def test_a_verdict_falls_when_its_grounds_do(data):
    right = verdicts.judge(data)
    assert all(verdict.holds for verdict in right.values())
    changed = copy.deepcopy(data)
    changed["claims"]["releases"][0]["rotation"]["spread"] = 1.0
    for run in changed["runs"]["runs"]:
        run["digest"] = str(run["seed"]) + run["release"] if run["release"] else ""
    fallen = verdicts.judge(changed)
    assert not fallen["a"].holds
    assert not fallen["e"].holds
    assert "not settled" in str(fallen["a"])


def test_runs_that_are_not_there_are_missed(data):
    found = Runs(data["runs"]["runs"])
    with pytest.raises(LookupError, match="expected one for each seed"):
        found.of(release="1.20.10", data="digits", estimator="rotation", weight=-1.0)


def test_adding_the_missing_half_from_outside_is_the_repaired_release_bit_for_bit():
    """What the figure of claim (e) shows on releases, here on the reference and its mutant."""
    setting = {"data": "speech", "estimator": "rotation", "steps": 30}
    right = train(SimVQ, Setting(**setting))
    with MUTANTS["encoder-half-missing-with-rotation"].applied():
        faulty = train(SimVQ, Setting(**setting))
        mended = train(SimVQ, Setting(**setting, encoder_half="added"))
    assert mended["digest"] == right["digest"] != faulty["digest"]


def test_removing_the_half_from_outside_leaves_the_encoder_to_the_decoder():
    setting = {"data": "speech", "estimator": "straight-through", "steps": 30}
    without = train(SimVQ, Setting(**setting, encoder_half="removed"))
    assert without["digest"] != train(SimVQ, Setting(**setting))["digest"]


def test_the_ablation_turns_the_gradient_and_does_not_stretch_it():
    import vector_quantize_pytorch

    from studies.evidence.training import _ratio

    upstream = vector_quantize_pytorch.SimVQ
    module = sys.modules[upstream.__module__]
    x, q, g = torch.randn(3, 8, 5, generator=torch.Generator().manual_seed(0)).double()
    leaf = x.clone().requires_grad_()
    released = module.rotate_to
    with _ratio(upstream, "one"):
        output = module.rotate_to(leaf, q)
    (found,) = torch.autograd.grad(output, leaf, g)
    right = oracle.rotate_back(x.numpy(), q.numpy(), g.numpy())
    assert module.rotate_to is released
    # upstream's formula in float64: a few roundings for each of D entries, over ‖x̂ + q̂‖
    x_hat, q_hat = (v / v.norm(dim=-1, keepdim=True) for v in (x, q))
    condition = (1 + 1 / (x_hat + q_hat).norm(dim=-1)).numpy()
    bound = 16 * x.shape[-1] * 2.0**-53 * condition * g.norm(dim=-1).numpy()
    assert (abs(found.numpy() - right).max(axis=-1) <= bound).all()
    torch.testing.assert_close(output.detach(), q)


def test_the_speech_has_silence_around_every_sentence_and_knows_how_it_was_made():
    from studies.evidence.data_sets import sentences

    frames, lengths = sentences()
    with np.load(speech.FILE) as file:
        settings = json.loads(str(file["settings"]))
    assert settings["sentences"] == list(speech.SENTENCES)
    for sentence, length in zip(frames, lengths.tolist(), strict=True):
        assert not sentence[0].any()
        assert not sentence[length - 1 :].any()
        assert sentence[:length].any()
    assert speech.FILE.stat().st_size < 300_000
