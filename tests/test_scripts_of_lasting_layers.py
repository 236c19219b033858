"""Scripts of laws about layers that last, each run alone on releases: exit code 1 on the bad one, 0 on its fix."""

import subprocess
import sys
from pathlib import Path

import pytest

from vq_reference.testing.catalogue import laws
from vq_reference.testing.judge import judge
from vq_reference.testing.releases import ReleaseUnavailable, fetch

# of `lasting_targets`: the target, a law, the last release that breaks it and the first that does not
MENDED = {
    "residual-dead-layers": ("stack", "stack.flow", "0.10.11", "0.10.12"),
    "ema-padding": ("with_masks", "mask.tokens", "1.6.24", "1.6.27"),
    "ema-counts-zero": ("with_its_own_counts", "ema.unused", "1.15.2", "1.15.3"),
}


@pytest.mark.parametrize("name", MENDED)
def test_a_script_shows_the_bug_of_a_release_and_holds_on_its_fix(name, tmp_path):
    target, law, bad, good = MENDED[name]
    try:
        releases = [fetch(f"vector-quantize-pytorch=={version}") for version in (bad, good)]
    except ReleaseUnavailable as reason:
        pytest.skip(str(reason))
    file = Path(__file__).with_name("lasting_targets.py")
    command = [
        sys.executable,
        "-m",
        "vq_reference.testing",
        "run",
        f"{file}:{target}",
        "--law",
        law,
        "--profile",
        "quick",
    ]
    asked = [*command, "--with", f"vector-quantize-pytorch=={bad}", "--scripts", str(tmp_path)]
    done = subprocess.run(asked, capture_output=True, encoding="utf-8")
    (script,) = tmp_path.glob("*.py")
    assert done.returncode == 1, done.stdout
    command = [sys.executable, str(script)]
    ended = [
        subprocess.run(command, capture_output=True, encoding="utf-8", cwd=tmp_path, env=release.environment())
        for release in releases
    ]
    assert [each.returncode for each in ended] == [1, 0], ended
    assert [each.stdout.splitlines()[-1] for each in ended] == ["broken", "holds"]


def test_a_layer_that_no_script_can_call_says_why():
    from vq_reference.testing.mutants import implementation_of_mutant

    found = judge(laws()["stack.sum"], implementation_of_mutant("last-code-alone"), "quick", None)[0].counterexample
    assert found.script == ""
    assert found.no_script == "the layer is no torch module that a script could call"
