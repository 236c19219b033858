"""Scripts of laws about layers that last, each run alone on releases: exit code 1 on the bad one, 0 on its fix."""

import importlib

import pytest
from run_script import alone

from vq_reference.testing.laws.registry import laws
from vq_reference.testing.processes.own_process import in_own_process
from vq_reference.testing.releases.fetch import ReleaseUnavailable, fetch
from vq_reference.testing.run.judge import judge

# of `stateful_targets`: the target, a law, the last release that breaks it and the first that does not
MENDED = {
    "residual-dead-layers": ("stack", "stack.flow", "0.10.11", "0.10.12"),
    "ema-padding": ("with_masks", "mask.tokens", "1.6.24", "1.6.27"),
    "ema-counts-zero": ("with_its_own_counts", "ema.unused", "1.15.2", "1.15.3"),
    "ema-counts-zero, as constructed": ("with_its_own_counts", "ema.fresh", "1.15.2", "1.15.3"),
}


def script_of(target, law):
    """Return what a law prints for a target of `stateful_targets`, on the release that is there."""
    tested = getattr(importlib.import_module("stateful_targets"), target)()
    return judge(laws()[law], tested, "quick", None)[0].counterexample.script


@pytest.mark.parametrize("name", MENDED)
def test_a_script_shows_the_bug_of_a_release_and_holds_on_its_fix(name, tmp_path):
    target, law, bad, good = MENDED[name]
    try:
        releases = [fetch(f"vector-quantize-pytorch=={version}") for version in (bad, good)]
    except ReleaseUnavailable as reason:
        pytest.skip(str(reason))
    script = in_own_process(script_of, target, law, release=releases[0])
    ended = [alone(script, tmp_path, release) for release in releases]
    assert [each.returncode for each in ended] == [1, 0], ended
    assert [each.stdout.splitlines()[-1] for each in ended] == ["broken", "holds"]


def test_a_layer_that_no_script_can_call_says_why():
    from vq_reference.testing.mutants import implementation_of_mutant

    found = judge(laws()["stack.sum"], implementation_of_mutant("last-code-alone"), "quick", None)[0].counterexample
    assert found.script == ""
    assert found.no_script == "the layer is no torch module that a script could call"
