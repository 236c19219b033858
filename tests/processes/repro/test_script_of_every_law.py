"""Every law that a mutant breaks has a script, which finds the fault in somebody's package and none where it is mended.

The package is our own code under another name, with the mutant's change in it or without.
"""

import dataclasses
import functools
import sys

import numpy as np
import pytest
import third_party_copy
from run_script import alone

from vq_reference.testing.adapters.codegen.run_script import OPENING, run
from vq_reference.testing.adapters.codegen.source import NoScript
from vq_reference.testing.laws.assertions import LawBroken
from vq_reference.testing.laws.registry import laws
from vq_reference.testing.mutants import MUTANTS
from vq_reference.testing.mutants.kill import first_failure
from vq_reference.testing.recording.calls import Border
from vq_reference.testing.reporting.repro.ends import Told, comparisons, tried
from vq_reference.testing.reporting.repro.script import script

LAWS = laws()
PACKAGE = "somebodys"
# Mutants whose scripts are run, each alone: what a script is made of, and each way to end.
RUN = (
    # one call: with another cotangent, an expression of its own, at parameters, of a form, by an exception
    *("gradient-clipped-far-out", "scaled-loss-clipped", "rotation-out-of-its-plane", "frozen-codes-are-trained"),
    *("transform-learns-only-with-the-encoder", "indices-of-a-signed-byte", "rotation-squeezes-one-dimension"),
    *("input-written-in-place", "input-read-as-if-contiguous", "gradient-of-the-mirrored-token"),
    "indices-in-a-byte",
    # several calls: what a layer does later, in eval, with what it returned, of parts, of another size, decoded
    *("fourth-call-without-beta", "eval-without-transform", "answers-cached", "tokens-centred-on-their-batch"),
    *("distance-by-huber", "encoder-half-doubled", "decodes-frozen-codes"),
    # terms: of a layer, of its codes, of its indices
    *("diversity-of-each-position", "one-code-of-a-pair-is-detached", "perplexity-in-bits"),
    # layers that last: compared with the oracle, another call, the state before; a form, an exception, several calls
    *("sums-not-saved", "schedule-in-a-lambda", "eval-calls-are-counted", "mean-over-padding-too"),
    *("nothing-divided-by-nothing", "unused-codes-decay", "replaced-with-too-small-sums", "initialised-from-padding"),
    *("heads-interleaved", "decodes-raw-codes", "output-stays-wide", "every-layer-sees-the-input"),
    *("an-estimator-for-each-layer", "dropped-layers-have-the-first-code", "one-token-for-all-dead-codes"),
)
# Not asked here, for a layer takes seconds to compile: `compiled.state` is, and a script of them is made of the same.
COMPILED = {"compiled.mask", "compiled.reply"}
# Nor is a law that starts processes: the scripts of these are run in `test_scripts_of_ranks`.
RANKS = {"state.ranks", "state.ranks_equal_one"}
# of every other law, the first mutant that it kills
MADE = {m.killed_by: name for name, m in reversed(MUTANTS.items()) if m.killed_by not in COMPILED | RANKS}
MADE = {law: name for law, name in MADE.items() if law not in {MUTANTS[each].killed_by for each in RUN}}
# faults that break another law in another way than those that it kills
OTHERS = (
    # decoded are indices that were wrong; raised is by the loss's backward, or where memory ends
    ("indices-of-a-signed-byte", "decode.output"),
    ("statistics-centre-the-input", "eval.gradient"),
    # decoded is what has another shape
    ("decode-keeps-heads-apart", "heads.decode"),
    ("input-read-as-if-contiguous", "call.expanded"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder on the path, with the package in it."""
    made = tmp_path_factory.mktemp("theirs")
    third_party_copy.write(made, PACKAGE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(made), *sys.path])
        yield made


def script_of(name, law=None):
    """Return the script of a law's first failure on this mutant, which is at work in the package; of its own law's."""
    mutant, border = MUTANTS[name], Border()
    change = {part: getattr(mutant, part).replace("vq_reference", PACKAGE) for part in ("module", "replace", "by")}
    law, tested = LAWS[law or mutant.killed_by], third_party_copy.adapter_of(PACKAGE, mutant)

    @functools.wraps(law.check)
    def check(*given, **drawn):
        border.begin()
        law.check(*given, **drawn)

    with dataclasses.replace(mutant, **change).applied():
        failure = first_failure(dataclasses.replace(law, check=check), border.watch(tested))
        return script(law, tested, border, failure.error, {})


def test_every_law_is_asked():
    assert {*MADE, *COMPILED, *RANKS, *(MUTANTS[name].killed_by for name in RUN)} == set(LAWS)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("law", MADE)
def test_a_law_that_breaks_has_a_script(law):
    """It was tried out when it was made: it finds the fault in the package, and none in right code."""
    assert script_of(MADE[law])


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("name", "law"), OTHERS)
def test_what_a_fault_does_elsewhere_has_a_script_too(name, law):
    assert script_of(name, law)


@pytest.mark.parametrize("name", RUN)
def test_a_script_shows_the_fault_and_holds_where_it_is_mended(name, folder):
    found = script_of(name)
    assert "import vq_reference" not in found
    assert "from vq_reference" not in found
    third_party_copy.write(folder, PACKAGE, MUTANTS[name])
    bad = alone(found, folder)
    third_party_copy.write(folder, PACKAGE)
    mended = alone(found, folder)
    assert bad.returncode == 1
    assert "Error" in bad.stderr or [line.split()[0] for line in bad.stdout.splitlines()[1:]] == [
        *("expected", "actual", "bound", "broken")
    ]
    assert (mended.returncode, mended.stderr) == (0, "")
    assert "holds" in mended.stdout.splitlines()[-1]


@pytest.mark.usefixtures("folder")
def test_a_contradicted_declaration_has_none_and_says_why():
    """Eval gives no loss, and the adapter says that it does: the fault may be the adapter's."""
    with pytest.raises(NoScript, match="contradicts its declaration"):
        script_of("no-loss-in-eval")


def test_of_two_calls_of_which_one_is_scaled_the_faulty_one_is_shown():
    """A law took four times the loss of the small call, 0.5, for that of the large one, 4: right code gives 1 there."""
    error = LawBroken("ℓ", np.array(4.0), np.array(2.0), np.array(0.125))
    opening = OPENING.format(sentence="It has degree two.", law="loss.homogeneous", target="theirs", versions="1")
    told = Told(f"{opening}loss = 0.5\n", f"{opening}loss = 1.0\n")
    found = run(tried(told, comparisons(told, "loss", error), error)).names
    assert [found[name].item() for name in ("expected", "actual", "bound")] == [1.0, 0.5, 0.125 / 4]


def test_where_neither_of_two_calls_was_right_right_code_says_what_is():
    """It has its own rounding: the bound is twice the law's."""
    error = LawBroken("ℓ", np.array(4.0), np.array(3.0), np.array(0.125))
    opening = OPENING.format(sentence="It is linear.", law="loss.weight", target="theirs", versions="1")
    told = Told(f"{opening}loss = 4.0\n", f"{opening}loss = 5.0\n")
    found = run(tried(told, comparisons(told, "loss", error), error)).names
    assert [found[name].item() for name in ("expected", "actual", "bound")] == [5.0, 4.0, 0.25]
