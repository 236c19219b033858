"""A standalone script for a broken law: it exits 1 while the fault is there and 0 when it is not.

It imports torch, NumPy and the package under test, nothing of ours, so that whoever gets it in a bug report needs
nothing else. Inputs, expected values and bound stand in it with every bit. No script is handed out that was not run
twice: here it has to find the fault, and with the same lines on the reference it has to find none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from vq_reference.testing.adapters.codegen.run_script import COMPARE, NO_EXCEPTION, ONE_OF, OPENING, run
from vq_reference.testing.adapters.codegen.source import NoScript, exactly
from vq_reference.testing.interface.errors import DeclarationContradicted
from vq_reference.testing.interface.implementation import Implementation
from vq_reference.testing.interface.stateful import bare
from vq_reference.testing.interface.subjects import Case
from vq_reference.testing.laws.assertions import LawBroken, NoneOfThose
from vq_reference.testing.laws.expected.nearest import decided
from vq_reference.testing.laws.law import Law
from vq_reference.testing.recording.calls import Border, Called, Decoded, Step, Stepped
from vq_reference.testing.recording.trace import TOGETHER
from vq_reference.testing.reporting.repro.distributed_script import ranks_script
from vq_reference.testing.reporting.repro.ends import Told, comparisons, tried
from vq_reference.testing.reporting.repro.lines import GRADIENT, JACOBIAN, SHARE, SIDES, lines_of, shares
from vq_reference.testing.reporting.repro.quantities import FORM, expression
from vq_reference.testing.reporting.repro.right_code import right_code
from vq_reference.testing.reporting.repro.stateful_script import lasting_script
from vq_reference.testing.reporting.repro.terms import term_script

MOST_STEPS = 6
# read anew: a layer may put another tensor in the place of one that it has
STATE = "{**dict(layer.named_parameters()), **dict(layer.named_buffers())}"
# of a state that was looked at once what a call returned was overwritten, what follows its name
OVERWRITTEN = ", once the answer is overwritten,"
# where the law itself has looked for the code that an index names
NO_CODE = COMPARE.format(
    actual=expression("index − (K − 1)/2"),
    rows="",
    expected="torch.zeros(len(indices))",
    bound="torch.full((len(indices),), (len(codes) - 1) / 2)",
    what="index − (K − 1)/2",
)
CRASH = f"""

gradient(start + 0 * loss, x)  # through both, as the law's backward
{NO_EXCEPTION}"""


def script(law: Law, tested: Implementation, border: Border, error: Exception, versions: Mapping[str, str]) -> str:
    """Return the script for a law that ended with `error`. Raises NoScript.

    border: what crossed it last. versions: for the heading.
    """
    opening = OPENING.format(
        sentence=law.sentence,
        law=law.id,
        target=tested.name,
        versions=", ".join(f"{name} {version}" for name, version in versions.items()),
    )
    if isinstance(error, DeclarationContradicted):
        raise NoScript("the module contradicts its declaration, and a script would not know which of the two is wrong")
    together = [step for step in border.trace.steps if step.did == TOGETHER]
    if together and tested.lasting is not None:
        return ranks_script(opening, together[-1], tested.lasting, error)
    if border.trace.steps and tested.lasting is not None:
        return lasting_script(opening, border.trace, tested.lasting, error)
    opening += GRADIENT
    if border.terms:
        return term_script(opening, tested, border.terms, error)
    if tested.script is None:
        raise NoScript(f"the adapter of {tested.name} has none")
    opening += JACOBIAN if isinstance(error, LawBroken) and "jacobian(" in (expression(error.what) or "") else ""
    if isinstance(error, LawBroken) and error.what in SIDES:
        write, dtype = tested.script, tested.precision.name
        sides = (opening + shares(each, border, error.what, dtype) for each in (write, right_code(tested)))
        told = Told(*sides)
        return tried(told, comparisons(told, SHARE, error), error)
    reason = NoScript("the law did not call the layer in this process")
    for steps, start in _candidates(border):
        try:
            return tried(*_told(opening, tested, steps, start, error), error)
        except NoScript as why:
            reason = why
    raise reason


def _candidates(border: Border) -> Iterator[tuple[Sequence[Step], int]]:
    """Yield what may show the fault, with the number of the cotangent that backwards begin from.

    One call by itself, the latest first, or a decoding and the call before; then all that the last layer went through.
    """
    for i in range(len(border.steps) - 1, -1, -1)[:MOST_STEPS]:
        step = border.steps[i]
        if isinstance(step, Called):
            yield from (([step], start) for start in range(max(len(step.cotangents), 1)))
        elif not isinstance(step, Stepped):
            before = [each for each in border.steps[:i] if isinstance(each, Called) and each.layer == step.layer]
            if isinstance(step, Decoded) and step.returned:
                yield [*before[-1:], step._replace(returned=False)], 0
            yield [*before[-1:], step], 0
    whole = [step for step in border.steps if step.layer == border.steps[-1].layer]
    if len(whole) > 1:
        yield whole, 0


def _told(
    opening: str, tested: Implementation, steps: Sequence[Step], start: int, error: Exception
) -> tuple[Told, Iterator[str]]:
    """Return the lines of these steps, and the ends that may show the fault after them. Raises NoScript."""
    write, dtype = tested.script, tested.precision.name
    assert write is not None
    calls = [step for step in steps if isinstance(step, Called)]

    def told(reads: bool = True, kept: str = "") -> Told:
        return Told(
            *(opening + lines_of(each, steps, dtype, start, kept, reads) for each in (write, right_code(tested)))
        )

    if isinstance(error, LawBroken):
        actual = expression(error.what)
        if actual is not None:
            several = len(calls) > 1
            found = told(kept=actual if several else "")
            return found, _compared(tested, calls[-1], found, "torch.cat(kept)" if several else actual, error)
        found, name = told()._replace(right=None), bare(error.what.removesuffix(OVERWRITTEN))
        held = run(f"{found.faulty}\nheld = {STATE}").names.get("held")
        if not isinstance(held, dict) or name not in held:
            raise NoScript(f"{error.what!r} has no expression in plain torch yet")
        state = f"{STATE}[{name!r}]"
        # what was returned is overwritten by then: no backward passes through it
        actual = state if error.what.endswith(OVERWRITTEN) else f"(gradient(start, x), {state})[1]"
        return found, comparisons(found, actual, error)
    if isinstance(error, NoneOfThose) and error.what in FORM:
        end = ONE_OF.format(actual=FORM[error.what], allowed=error.allowed, what=error.what)
        return told(reads=False)._replace(right=None), iter([end])
    form = calls[-1].form if calls else None
    if form is not None and form.output_shape != form.output_expected:
        what = "shape of the output"
        end = ONE_OF.format(actual=FORM[what], allowed=(form.output_expected,), what=what)
        return told(reads=False)._replace(right=None), iter([end])
    if isinstance(error, AssertionError):
        raise NoScript("what the law compares is no number")
    return told(), iter([NO_CODE, CRASH] if isinstance(error, IndexError) else [CRASH])


def _compared(tested: Implementation, call: Called, told: Told, actual: str, error: LawBroken) -> Iterator[str]:
    """Yield the comparisons; of a choice, with right code's too, at every token where rounding cannot change it."""
    yield from comparisons(told, actual, error)
    if error.what == "selected code" and told.right is not None:
        sure = np.flatnonzero(decided(tested, Case(call.reference, call.x)))
        wanted = run(f"{told.right}\nwanted = codes[indices].detach().double().numpy()\n").names.get("wanted")
        if isinstance(wanted, np.ndarray):
            numbers = {"expected": exactly(wanted[sure]), "bound": exactly(np.zeros(wanted[sure].shape))}
            yield COMPARE.format(actual=actual, rows=f"[{sure.tolist()}]", what=error.what, **numbers)
