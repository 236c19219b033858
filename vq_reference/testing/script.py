"""A standalone script for a broken law: it exits 1 while the fault is there and 0 when it is not.

It imports torch, NumPy and the package under test, nothing of ours, so that whoever gets it in a bug report needs
nothing else. Inputs, expected values and bound stand in it with every bit. No script is handed out that was not run
twice: here it has to find the fault, and with the same lines on the reference it has to find none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from vq_reference.arguments import Array
from vq_reference.simvq import SimVQ
from vq_reference.testing.adapters.implementation import Call, Implementation
from vq_reference.testing.adapters.module_script import Script, right_script
from vq_reference.testing.adapters.scripts import sim_vq_script
from vq_reference.testing.adapters.source import NoScript, exactly
from vq_reference.testing.border import Border, Called
from vq_reference.testing.choice import decided
from vq_reference.testing.lasting_script import lasting_script
from vq_reference.testing.law import Law
from vq_reference.testing.measure import LawBroken, NoneOfThose
from vq_reference.testing.quantities import FORM, expression
from vq_reference.testing.script_text import BROKEN, COMPARE, HOLDS, NO_EXCEPTION, ONE_OF, OPENING, run
from vq_reference.testing.strategies import Case

HEAD = '''def gradient(value, at):
    """Return the gradient, and zeros where none arrives."""
    if not (isinstance(value, torch.Tensor) and value.requires_grad):
        return torch.zeros_like(at)
    (arrived,) = torch.autograd.grad(value, at, retain_graph=True, allow_unused=True)
    return torch.zeros_like(at) if arrived is None else arrived


def jacobian(output, x):
    """Return the Jacobian of each token's output at that token, (N, D, D), in float64."""
    return torch.stack([gradient(output[:, i].sum(), x) for i in range(output.shape[1])], dim=1).double()


'''

# of `loss.shares`: what it measures → whether that is a gradient at x, or else at the codes
SIDES = {"encoder's share": True, "codebook's share": False}
SHARE = "routed / ((ahead - behind) / 2)"
MOST_CALLS = 6
CRASH = f"""

gradient(start, x)
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
    if border.trace.steps and tested.lasting is not None:
        return lasting_script(opening, border.trace, tested.lasting, error)
    if tested.script is None:
        raise NoScript(f"the adapter of {tested.name} has none")
    write, opening = tested.script, opening + HEAD

    def right(reference: SimVQ, x: Array, how: Call) -> str:
        return _right(tested, reference, how)

    if isinstance(error, LawBroken) and error.what in SIDES:
        faulty, held = (opening + _shares(each, border, error.what, tested.precision.name) for each in (write, right))
        return _tried(faulty, held, [_compared(error, SHARE, "", error.expected)], error)
    reasons = ["the law made no call"]
    for call in border.calls[: -MOST_CALLS - 1 : -1]:
        try:
            faulty, held = (opening + _one(each, call, tested.precision.name) for each in (write, right))
            return _tried(faulty, held, _ends(tested, call, faulty, held, error), error)
        except NoScript as reason:
            reasons.append(str(reason))
    raise NoScript(reasons[-1])


def _tried(faulty: str, right: str, ends: Iterable[str], error: Exception) -> str:
    """Return the first script that shows the fault, and shows none in right code. Raises NoScript."""
    for end in ends:
        shown = run(faulty + end)
        # a form, and the name of a parameter, are the module's own: right code of ours does not have them
        own = isinstance(error, NoneOfThose) or _is_of_the_state(error, faulty)
        held = shown._replace(code=HOLDS) if own else run(right + end)
        # of an exception: the one that the law met, and not what the script itself may stumble over
        same = shown.raised is None or type(shown.raised) is type(error)
        if shown.code == BROKEN and same and held.code == HOLDS:
            return faulty + end
    raise NoScript("no call of the law, made alone, shows the fault")


def _right(tested: Implementation, reference: SimVQ, how: Call) -> str:
    """Return the lines of right code in the conventions that the adapter declares, in eval mode too.

    The same for any tokens, and however they lie: it takes them as (N, D).
    """
    if not how.training and tested.eval_estimator != "as training":
        reference = dataclasses.replace(reference, estimator=tested.eval_estimator)
    if "transform" in tested.capabilities:
        return sim_vq_script("vq_reference.nn")(reference, np.zeros(0), Call(training=how.training))
    a, b = tested.loss_weights(reference)
    c = a + b if tested.loss_value is None else tested.loss_value(reference)
    weights = (0.0, 0.0, 0.0) if not how.training and tested.eval_loss == "zero" else (a, b, c)
    return right_script(weights, tested.loss_reduction, tested.metric)(reference, np.zeros(0), how)


def _ends(tested: Implementation, call: Called, body: str, right: str, error: Exception) -> Iterator[str]:
    """Yield what may show the fault: the law's comparison, the same turned round, or an exception on the way.

    Turned round for a law that compares two calls: which of the two was the faulty one, it cannot know. Where such a
    law compares choices, both calls are asked for the choice of right code.
    """
    if isinstance(error, LawBroken):
        actual = expression(error.what)
        if actual is None and _is_of_the_state(error, body):
            yield _compared(error, f"(gradient(start, x), named[{error.what!r}])[1]", "", error.expected)
            return
        if actual is None:
            raise NoScript(f"{error.what!r} has no expression in plain torch yet")
        rows = _rows(body, actual, error.actual)
        if rows is not None:
            for expected in (error.expected, error.actual):
                yield _compared(error, actual, rows, expected)
        if error.what == "selected code":
            sure = np.flatnonzero(decided(tested, Case(call.reference, call.x)))
            wanted = run(f"{right}\nwanted = codes[indices].detach().double().numpy()\n").names.get("wanted")
            if isinstance(wanted, np.ndarray):
                numbers = {"expected": exactly(wanted[sure]), "bound": exactly(np.zeros(wanted[sure].shape))}
                yield COMPARE.format(actual=actual, rows=f"[{sure.tolist()}]", what=error.what, **numbers)
        return
    if isinstance(error, NoneOfThose) and error.what in FORM:
        yield ONE_OF.format(actual=FORM[error.what], allowed=error.allowed, what=error.what)
    elif isinstance(error, AssertionError):
        raise NoScript("what the law compares is no number")
    else:
        yield CRASH


def _is_of_the_state(error: Exception, body: str) -> bool:
    """Say whether a law compared a parameter or buffer, by the name that the script's module has for it."""
    return isinstance(error, LawBroken) and expression(error.what) is None and f"    {error.what!r}: " in body


def _compared(error: LawBroken, actual: str, rows: str, expected: Array) -> str:
    numbers = {"expected": exactly(expected), "bound": exactly(error.bound)}
    return COMPARE.format(actual=actual, rows=rows, what=error.what, **numbers)


def _shares(write: Script, border: Border, what: str, dtype: str) -> str:
    """Return the lines that compute a side's share of the loss's derivative, from the three calls it is made of.

    The loss's own gradient along the step, and the values of the loss a step ahead and a step behind.
    """
    begun = next(call for call in border.calls if call.cotangents)
    ahead, behind = border.calls[-2:]
    at_x = SIDES[what]
    step = (ahead.x - behind.x) / 2 if at_x else (ahead.reference.codebook - behind.reference.codebook) / 2
    return "\n".join(
        [
            _one(write, begun, dtype),
            f"routed = ({'gradient(start, x)' if at_x else 'at_codes(start)'}.double() * {exactly(step)}).sum()",
            _one(write, ahead, dtype),
            "ahead = loss.detach().double()",
            _one(write, behind, dtype),
            "behind = loss.detach().double()",
        ]
    )


def _one(write: Script, call: Called, dtype: str) -> str:
    """Return the lines of one call, and of what its backward starts from."""
    x = f"x = {exactly(call.x)}.to(torch.{dtype}).requires_grad_()  # the smallest input found\n"
    return f"{x}\n{write(call.reference, call.x, call.how)}\n{_start(call)}\n"


def _start(call: Called) -> str:
    """Say what the backward starts from, as the law's first one did."""
    if not call.cotangents:
        return "start = output.sum() + loss"
    g, at_loss = call.cotangents[0]
    terms = [f"(output * {exactly(np.asarray(g))}.to(output.dtype)).sum()"] if np.any(g) else []
    terms += [{0.0: "", 1.0: "loss"}.get(at_loss, f"{at_loss!r} * loss")]
    return f"start = {' + '.join(filter(None, terms)) or 'torch.zeros(())'}"


def _rows(body: str, actual: str, measured: Array) -> str | None:
    """Say which rows the law looked at, as source: it leaves out tokens whose choice rounding could change.

    None where that cannot be said: the call raises when it is made alone, or the rows are those of several calls.
    """
    whole = run(f"{body}\nwhole = torch.as_tensor({actual}).detach().double().numpy()\n").names.get("whole")
    if not isinstance(whole, np.ndarray):
        return None
    if whole.size == measured.size:
        return f".reshape({measured.shape})"
    if whole.shape[1:] != measured.shape[1:]:
        return None
    same = [[i for i in range(len(whole)) if np.array_equal(whole[i], row)] for row in measured]
    return f"[{[rows[0] for rows in same]}]" if all(same) else None
