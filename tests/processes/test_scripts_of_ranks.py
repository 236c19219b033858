"""Scripts of laws about several processes, each run alone: exit code 1 on the faulty module, 0 on the mended one."""

import functools

import pytest
from run_script import alone
from test_ranks import OWN, TRAINING, pytestmark  # noqa: F401 - the same backend is needed

from vq_reference.testing.adapters.codegen.run_script import OPENING
from vq_reference.testing.laws.registry import laws
from vq_reference.testing.laws.verdict import Verdict
from vq_reference.testing.recording.trace import TOGETHER, Step
from vq_reference.testing.reporting.repro import distributed_script as scripts
from vq_reference.testing.run.judge import judge
from vq_reference.testing.run.targets import implementation_of

RIGHT = "dist.all_reduce(n); dist.all_reduce(s)"
# law → what stands in place of the sums over all ranks, and what the law says then
FAULTS = {
    # what a module prints is not taken for an answer
    "state.ranks": ("__import__('os').write(1, b'hello\\n'); dist.all_reduce(n)", "codes of the other rank"),
    "state.ranks_equal_one": (f"{RIGHT}; n /= 2; s /= 2", "counts of codebook 0"),
}


@pytest.fixture
def put(tmp_path, monkeypatch):
    """Return what writes the module with this in place of the sums, and gives its adapter."""
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "own_ranks.py"

    def written(share):
        file.write_text(OWN.replace("SHARE", share), encoding="utf-8")
        return functools.partial(implementation_of, f"{file}:adapter")

    return written


@pytest.mark.parametrize("law", FAULTS)
def test_a_script_starts_the_processes_and_holds_on_the_mended_module(law, put, tmp_path):
    share, said = FAULTS[law]
    outcome, _ = judge(laws()[law], put(share)(), "quick", None)
    assert outcome.verdict is Verdict.BROKEN
    assert said in outcome.message
    found = outcome.counterexample
    assert found.script, found.no_script
    assert "vq_reference" not in found.script
    bad = alone(found.script, tmp_path)
    assert (bad.returncode, bad.stderr) == (1, "")
    assert [line.split()[0] for line in bad.stdout.splitlines()[1:]] == ["expected", "actual", "bound", "broken"]
    put(RIGHT)
    mended = alone(found.script, tmp_path)
    assert (mended.returncode, mended.stderr, mended.stdout.splitlines()[-1]) == (0, "", "holds")


# how processes end that give nothing: what stands in place of the sums, and what the law says
ENDS = {
    "one raises": ("raise OSError('no link')", RuntimeError("rank 0 of 2 ended with OSError: no link")),
    # the law has waited for them: the script waits less when it is tried out than when it is handed out
    "one is late": (
        "dist.get_rank() or __import__('time').sleep(600)",
        AssertionError("2 processes do not end within 90 s"),
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_script_shows_processes_that_do_not_end_well(end, put, monkeypatch):
    """It is tried out when it is made, on the faulty module and on right code."""
    share, error = ENDS[end]
    monkeypatch.setattr(scripts, "SOON", 4.0)
    lasting = put(RIGHT)().lasting
    put(share)
    step = Step(TOGETHER, (), {"trainings": [TRAINING]})
    opening = OPENING.format(sentence="They end.", law="state.ranks", target="theirs", versions="1")
    assert "LIMIT, RANKS = 90.0, 2" in scripts.ranks_script(opening, step, lasting, error)
