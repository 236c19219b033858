"""What a run prints, and writes for programs: every number that a reader needs, in words that change by no chance."""

import io
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import strategies as st
from rich.console import Console
from run_script import alone
from snapshots import assert_snapshot

from vq_reference.codebook import Layer
from vq_reference.simvq import SimVQ
from vq_reference.testing.adapters.ready.oracle import OracleLayer, oracle
from vq_reference.testing.adapters.ready.simvq import reference_module
from vq_reference.testing.interface.implementation import Cotangent, Implementation
from vq_reference.testing.interface.subjects import REGULAR_NORMS, TRAINED, Case
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds
from vq_reference.testing.laws.law import Law
from vq_reference.testing.laws.registry import laws
from vq_reference.testing.laws.verdict import Outcome, Verdict
from vq_reference.testing.reporting import run_files, terminal
from vq_reference.testing.reporting.counterexample import described
from vq_reference.testing.reporting.known_bugs import nearest_known_bug
from vq_reference.testing.reporting.results import Plan, Result
from vq_reference.testing.run.expectations import Expectation, expect
from vq_reference.testing.run.judge import judge

VERSIONS = {"some-package": "1.0", "python": "3.11"}


class HalfMissing(OracleLayer):
    """A layer whose encoder gets no gradient from the loss, and whose loss lacks that half: issue 177."""

    def __call__(self, x, cotangents=(), how=None):
        """Quantize by a layer with β = 0 wherever the rotation is in use."""
        reference = self.reference
        if reference.estimator == "rotation":
            reference = SimVQ(
                reference.frozen_codebook, reference.transform, "rotation", 0.0, reference.commitment_weight
            )
        return OracleLayer(reference)(x, cotangents)


class OffByOne(OracleLayer):
    """A layer whose output is 1 too large, as nobody's known bug is."""

    def __call__(self, x, cotangents=(), how=None):
        """Quantize, and add 1."""
        answer = super().__call__(x, cotangents)
        return answer._replace(output=answer.output + 1)


class NoLoss(OracleLayer):
    """A layer whose loss is 0 and trains nothing."""

    def __call__(self, x, cotangents=(), how=None):
        """Quantize by a layer without weight."""
        return OracleLayer(replace(self.reference, commitment_weight=0.0))(x, cotangents)


class Sum(OracleLayer):
    """A layer that sums squares over D: the loss and its gradients are D times too large."""

    def __call__(self, x, cotangents=(), how=None):
        """Quantize by a layer with D times the weight."""
        weight = self.reference.commitment_weight * x.shape[1]
        return OracleLayer(replace(self.reference, commitment_weight=weight))(x, cotangents)


class ShortensExtremes(OracleLayer):
    """A layer that gives 0 for one kind of extreme input."""

    def __call__(self, x, cotangents=(), how=None):
        """Quantize, and lose the code where the input is extreme."""
        answer = super().__call__(x, cotangents)
        norm = np.linalg.norm(x, axis=1, keepdims=True)
        rotated = self.reference.estimator == "rotation"
        shortest, longest = REGULAR_NORMS
        lost = (norm < shortest) if rotated else (norm > longest)
        return answer._replace(output=np.where(lost, 0.0, answer.output))


def unweighted(reference):
    """A loss that takes no weight."""
    return OracleLayer(replace(reference, commitment_weight=1.0))


def subject(layer, name="some.Target") -> Implementation:
    return replace(oracle(), name=name, build=layer)


# where most laws show a fault: one token, one code, a transform that is not the identity, β not 1
CASE = Case(
    SimVQ(np.array([[-1.0, 0.5]]), (Layer(np.array([[0.0, -2.0], [2.0, 0.0]])),), "rotation", 0.25, 2.0),
    np.array([[0.5, -1.0]]),
)


def outcomes_of(tested, *ids):
    """Judge the laws on this one case: nothing is searched or shrunk, so that the texts depend on no library."""
    catalogue = laws()
    on_one_case = [replace(catalogue[law], draws={"case": st.just(CASE)}) for law in ids]
    return [judge(law, tested, "quick", None)[0] for law in on_one_case]


def result_of(outcomes, target="some.Target"):
    # seconds are the only thing that differs from run to run
    outcomes = [replace(outcome, seconds=0.0) for outcome in outcomes]
    return Result(Plan(target, tuple(outcome.law for outcome in outcomes), "quick"), VERSIONS, outcomes)


HALVES = ("loss.codebook_half", "loss.encoder_half")
HALF_MISSING = ("loss.any_estimator", "loss.codebook_half", "loss.encoder_half", "loss.formula", "rotation.proper")


def encoder_half(implementation, case):
    """The loss pulls the encoder to its codes."""
    answer = implementation.build(case.reference)(case.x, [Cotangent(np.zeros_like(case.x), 1.0)])
    expected = case.reference.gradients(case.x, np.zeros_like(case.x), 1.0).x
    bound = bounds.loss_gradient(expected, implementation.precision.unit_roundoff)
    assert_within("∂ℓ/∂x", answer.gradients[0].x, expected, bound)


def formula(implementation, case):
    """The loss is its formula."""
    value, expected = (build(case.reference)(case.x).loss for build in (implementation.build, OracleLayer))
    u = implementation.precision.unit_roundoff
    assert_within("ℓ", value, expected, bounds.mean_square(case.x.size, u) * expected)


def proper(implementation, case):
    """The rotation has one determinant."""
    raise RuntimeError("singular matrix")


def test_the_report_of_a_run():
    """Sentence, versions, expected, actual, bound and where it comes from, smallest input, nearest known bug.

    The laws are examples, so that the text here changes with the report alone.
    """
    checks = {"loss.encoder_half": encoder_half, "loss.formula": formula, "rotation.proper": proper}
    drawn = {"case": st.just(CASE)}
    made = [Law(law, "must", "a paper", frozenset(), check, drawn) for law, check in checks.items()]
    wrong = result_of([judge(law, subject(HalfMissing), "quick", None)[0] for law in made])
    right = result_of([judge(law, subject(OracleLayer), "quick", None)[0] for law in made[:2]])
    assert_snapshot("report", printed({"some.Target 1.0": wrong, "some.Target 1.1": right}, width=100))


@pytest.fixture(scope="module")
def half_missing():
    return result_of(outcomes_of(subject(HalfMissing), *HALF_MISSING))


def printed(results, width=80, strict=False):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    terminal.show(console, results, strict)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


def test_the_report_of_laws_that_crashed_were_not_run_or_hold_against_expectation():
    """Each says what happened and what to do."""
    outcomes = [
        Outcome("loss.formula", "must", "The loss is its formula.", Verdict.CRASHED, "took more than 120 s"),
        Outcome("nearest.choice", "must", "The code is the nearest.", Verdict.HELD, margins={"d": 0.5}, examples=50),
        Outcome("rotation.proper", "must", "The rotation is proper.", Verdict.BROKEN, "det is −1"),
    ]
    entries = [Expectation(law, f"a known fault of {law}") for law in ("nearest.choice", "rotation.proper")]
    lost = [Outcome(o.law, o.level, o.sentence, Verdict.NOT_RUN, "No module named 'x'") for o in outcomes]
    results = {
        "some.Target": result_of(expect(outcomes, entries, "some.Target", {}, "default")),
        "other.Target": result_of(lost),
    }
    assert_snapshot("report_of_trouble", printed(results, width=100))


def test_what_every_law_meets_is_said_once():
    """A layout that does not fit makes each call fail."""
    laws_met = ("call.eval", "call.input", "loss.formula")
    outcomes = [Outcome(law, "must", "A sentence.", Verdict.CRASHED, "the shape does not fit") for law in laws_met]
    said = printed({"some.Target": result_of(outcomes)})
    assert said.count("the shape does not fit") == 1
    assert "! call.*, loss.formula (must) on some.Target" in said


def test_where_scripts_were_written_the_report_names_the_file(half_missing):
    console = Console(file=io.StringIO(), width=100, color_system=None)
    found = [o for o in half_missing.outcomes if o.law == "loss.formula"]
    shown = [replace(o, counterexample=replace(o.counterexample, script="pass")) for o in found]
    results = {"some.Target 1.0": result_of(shown)}
    terminal.show(console, results, False, Path("broken"))
    (name,) = re.findall(r"a script that shows this alone: (\S+)", console.file.getvalue())
    assert [name] == [f"broken/{file}" for file, _ in run_files.scripts(results)]


def test_five_runs_fit_in_eighty_columns():
    """Longer names than fit beside each other are numbered, and no line is broken."""
    outcomes = [
        Outcome(law.id, law.level, law.sentence, Verdict.HELD, margins={"x": 0.0123}) for law in laws().values()
    ]
    results = {f"some.Target with a long name {i}": result_of(outcomes) for i in range(5)}
    console = Console(file=io.StringIO(), width=80, color_system=None)
    console.print(terminal.table(results, 80))
    lines = console.file.getvalue().splitlines()
    for law in laws().values():
        (row,) = (line for line in lines if line.split()[:1] == [law.id])
        assert row.split().count("0.01") == len(results)
    assert "3  some.Target with a long name 2" in (line.rstrip() for line in lines)


@pytest.mark.parametrize(
    ("layer", "laws_run", "law", "name"),
    [
        (HalfMissing, HALF_MISSING, "loss.encoder_half", "encoder share 0"),
        (HalfMissing, HALF_MISSING, "loss.any_estimator", "encoder share 0"),
        (HalfMissing, ("loss.formula",), "loss.formula", "encoder share 0"),
        (NoLoss, HALVES, "loss.encoder_half", "no loss at all"),
        (Sum, ("loss.formula", "loss.encoder_half"), "loss.formula", "squares summed over the width"),
        (unweighted, ("loss.formula", *HALVES), "loss.formula", "the loss does not depend on commitment_weight"),
        (OffByOne, ("rotation.output",), "rotation.output", None),
    ],
)
def test_the_nearest_known_bug_is_named_by_laws_and_numbers(layer, laws_run, law, name):
    """A law alone says little: a loss may be too small in many ways, and by 1/(1 + β) in one."""
    bug = nearest_known_bug(law, outcomes_of(subject(layer), *laws_run))
    assert (bug and bug.name) == name


@pytest.mark.parametrize(
    ("estimator", "length", "name"),
    [
        ("rotation", 0.0, "zero input"),
        ("rotation", 1e-9, "a short input"),
        ("straight_through", 1e120, "the code is lost in a long input"),
    ],
)
def test_the_known_bug_of_an_extreme_input_is_the_one_that_the_input_shows(estimator, length, name):
    """All three end in 0: what came out does not tell them apart."""
    case = replace(CASE, reference=replace(CASE.reference, estimator=estimator), x=length * CASE.x)
    law = replace(laws()["output.extreme"], draws={"case": st.just(case)})
    tested = subject(ShortensExtremes)
    tested = replace(tested, capabilities=tested.capabilities - {f"estimator:{e}" for e in TRAINED if e != estimator})
    outcome = judge(law, tested, "quick", None)[0]
    assert nearest_known_bug("output.extreme", [outcome]).name == name


def test_the_smallest_input_is_shown_as_effective_codes_and_as_their_parts_where_a_law_is_about_those():
    """Every implementation has effective codes; frozen ones are SimVQ's alone."""
    (plain,) = (o.counterexample.inputs for o in outcomes_of(subject(OffByOne), "rotation.output"))
    assert "case.reference.codes = [[-1, -2]]" in plain
    assert not any("frozen" in line or "transform" in line for line in plain)
    whole = "\n".join(described("case", CASE, whole=True))
    assert "case.reference.frozen_codebook = [[-1, 0.5]]" in whole
    assert "case.reference.codes = [[-1, -2]]" in whole


def test_laws_that_are_not_applicable_are_counted_by_what_is_wanting():
    """A law that needs two things is counted once, for the one that most laws need; a family is named where all are."""
    of = {"a.one": ["masks"], "a.two": ["masks", "heads"], "b.one": ["heads", "masks"], "c.one": ["a loss"]}
    of |= {"d.one": ["a mean"], "d.two": ["a mean"]}
    outcomes = [Outcome(law, "must", "…", Verdict.NOT_APPLICABLE, "…", lacks=lacks) for law, lacks in of.items()]
    said = printed({"some.Target": result_of([*outcomes, Outcome("d.three", "must", "…", Verdict.HELD)])}, width=100)
    assert "– not applicable on some.Target, for want of" in said
    assert "    3  masks: a.*, b.one\n    2  a mean: d.one, d.two\n    1  a loss: c.one\n" in said


def test_a_law_that_applies_to_no_run_has_no_row():
    """A row of blanks says nothing; what applies to one run of two has its row."""
    held, inapplicable = Verdict.HELD, Verdict.NOT_APPLICABLE
    of = {"one": {"a.one": held, "a.two": inapplicable, "a.three": inapplicable}}
    of["two"] = of["one"] | {"a.two": held}
    results = {n: result_of([Outcome(law, "must", "…", v) for law, v in laws.items()]) for n, laws in of.items()}
    console = Console(file=io.StringIO(), width=80, color_system=None)
    console.print(terminal.table(results, 80))
    rows = [line.split() for line in console.file.getvalue().splitlines()]
    assert [row for row in rows if row and row[0].startswith("a.")] == [
        ["a.one", "must", "✓", "✓"],
        ["a.two", "must", "–", "✓"],
    ]


def test_the_json_file_follows_its_schema(half_missing):
    """Every verdict and every kind of number, also those that JSON has no word for."""
    endless = Outcome("loss.zero", "must", "…", Verdict.HELD, margins={"ℓ": float("inf")})
    results = {"some.Target": half_missing, "lost": result_of([endless])}
    data = json.loads(json.dumps(run_files.as_json(results, strict=False), allow_nan=False))
    jsonschema.Draft202012Validator.check_schema(run_files.schema())
    jsonschema.validate(data, run_files.schema())
    assert data["failed"]
    account = data["runs"][0]["account"]
    assert account["planned"] == sum(account[verdict.value] for verdict in Verdict) == len(HALF_MISSING)
    assert data["runs"][1]["laws"][0]["margin"] == "inf"


def test_a_json_file_that_lacks_a_verdict_does_not_follow_the_schema(half_missing):
    """The schema can fail."""
    data = run_files.as_json({"some.Target": half_missing}, strict=False)
    del data["runs"][0]["laws"][0]["verdict"]
    with pytest.raises(jsonschema.ValidationError, match="verdict"):
        jsonschema.validate(data, run_files.schema())


def test_the_junit_file_counts_what_fails_and_what_is_skipped(half_missing):
    """A law expected to break is skipped with its reason; what a target printed cannot spoil the file."""
    entries = [Expectation("loss.formula", "a known fault \x00")]
    known = replace(half_missing, outcomes=expect(half_missing.outcomes, entries, "some.Target", {}, "default"))
    (suite,) = ET.fromstring(run_files.as_junit({"some.Target": known}, strict=False).encode())
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "5",
        "failures": "2",
        "errors": "0",
        "skipped": "1",
    }
    assert suite.find("testcase[@name='formula']/skipped").get("message") == "expected: a known fault ?"


def mutated(wrong):
    """Return the torch module with one method changed, as an implementation and as the lines of its script."""
    right = reference_module()

    def build(reference):
        layer = right.build(reference)
        layer.module.register_forward_hook(lambda module, entering, leaving: wrong(*leaving))
        return layer

    def lines(reference, x, how):
        written = right.script(reference, x, how)
        return written._replace(read=f"{written.read}\n{wrong.in_script}")

    return replace(right, name="mutant", build=build, script=lines)


def loss_detached(output, indices, loss):
    return output, indices, loss.detach()


loss_detached.in_script = "loss = loss.detach()"


@pytest.mark.parametrize("law", ["loss.codebook_half", "loss.encoder_half"])
def test_a_script_finds_the_fault_alone_and_none_in_right_code(law, tmp_path):
    """Exit code 1 on the faulty layer, 0 on the right one: inputs, expected values and bound stand in it."""
    (outcome,) = outcomes_of(mutated(loss_detached), law)
    source = outcome.counterexample.script
    faulty = alone(source, tmp_path)
    assert (faulty.returncode, faulty.stderr) == (1, "")
    assert faulty.stdout.splitlines()[-1] == "broken"
    right = alone(source.replace(loss_detached.in_script, ""), tmp_path)
    assert (right.returncode, right.stderr) == (0, "")
    assert right.stdout.splitlines()[-1] == "holds"


def test_a_script_imports_nothing_but_torch_numpy_and_the_package(tmp_path):
    """Beside two modules of Python's own; the reference is the package here."""
    (outcome,) = outcomes_of(mutated(loss_detached), "loss.formula")
    (broken,) = outcomes_of(mutated(loss_detached), "loss.codebook_half")
    assert outcome.counterexample is None
    imports = [line for line in broken.counterexample.script.splitlines() if line.startswith(("import ", "from "))]
    assert imports == [
        "import sys",
        "import numpy as np",
        "import torch",
        "import inspect",
        "from vq_reference.nn import SimVQ",
    ]


def test_a_law_without_script_says_why():
    """The oracle has no lines of torch."""
    (outcome,) = outcomes_of(subject(HalfMissing), "loss.formula")
    assert outcome.counterexample.script == ""
    assert outcome.counterexample.no_script == "the adapter of some.Target has none"


def test_numbers_in_a_counterexample_read_back_the_same():
    """Every bit of the smallest input: one that is rounded may not break the law."""
    x = np.array([[0.1, 1 / 3]])
    (outcome,) = outcomes_of(subject(HalfMissing), "loss.formula")
    (line,) = described("x", x)
    assert np.array_equal(np.array(json.loads(line.removeprefix("x = "))), x)
    assert any(line.startswith("case.x = ") for line in outcome.counterexample.inputs)
