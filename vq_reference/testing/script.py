"""A standalone script for a broken law: it exits 1 while the fault is there and 0 when it is not.

It imports torch, NumPy and the package under test, nothing of ours, so that whoever gets it in a bug report needs
nothing else. Inputs, expected values and bound stand in it with every bit. No script is handed out that was not run
twice: here it has to find the fault, and with the same lines on the reference it has to find none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from vq_reference.arguments import Array
from vq_reference.simvq import SimVQ
from vq_reference.testing.adapters.implementation import Call, Implementation
from vq_reference.testing.adapters.module_script import right_script
from vq_reference.testing.adapters.scripts import sim_vq_script
from vq_reference.testing.adapters.source import NoScript, exactly
from vq_reference.testing.border import Border, Called
from vq_reference.testing.lasting_script import lasting_script
from vq_reference.testing.law import Law
from vq_reference.testing.measure import LawBroken
from vq_reference.testing.quantities import expression
from vq_reference.testing.script_text import BROKEN, COMPARE, HOLDS, NO_EXCEPTION, OPENING, run

HEAD = '''def gradient(value, at):
    """Return the gradient, and zeros where none arrives."""
    if not (isinstance(value, torch.Tensor) and value.requires_grad):
        return torch.zeros_like(at)
    (arrived,) = torch.autograd.grad(value, at, retain_graph=True, allow_unused=True)
    return torch.zeros_like(at) if arrived is None else arrived


def jacobian(output, x):
    """Return the Jacobian of each token's output at that token, (N, D, D), in float64."""
    return torch.stack([gradient(output[:, i].sum(), x) for i in range(output.shape[1])], dim=1).double()


x = {x}.to(torch.{dtype}).requires_grad_()  # the smallest input found

'''

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
    call = border.last
    if call is None or call.how != Call():
        raise NoScript("the last call was not an ordinary forward")
    head = opening + HEAD.format(x=exactly(call.x), dtype=tested.precision.name)
    faulty, right = (
        f"{head}{lines(call.reference, call.x)}\n{_start(call)}" for lines in (tested.script, _right(tested, call))
    )
    for end in _ends(faulty, error):
        shown, held = run(faulty + end), run(right + end)
        # of an exception: the one that the law met, and not what the script itself may stumble over
        same = shown.raised is None or type(shown.raised) is type(error)
        if shown.code == BROKEN and same and held.code == HOLDS:
            return faulty + end
    raise NoScript("the last call, made alone, does not show the fault")


def _right(tested: Implementation, call: Called) -> Callable[[SimVQ, Array], str]:
    """Return the lines of right code in the conventions that the adapter declares."""
    if "transform" in tested.capabilities:
        return sim_vq_script("vq_reference.nn")
    a, b = tested.loss_weights(call.reference)
    c = a + b if tested.loss_value is None else tested.loss_value(call.reference)
    return right_script((a, b, c), tested.loss_reduction, tested.metric)


def _ends(body: str, error: Exception) -> Iterator[str]:
    """Yield what may show the fault: the law's comparison, the same turned round, or an exception on the way.

    Turned round for a law that compares two calls: which of the two was the faulty one, it cannot know.
    """
    if isinstance(error, LawBroken):
        actual = expression(error.what)
        if actual is None:
            raise NoScript(f"{error.what!r} has no expression in plain torch yet")
        rows = _rows(body, actual, error.actual)
        if rows is not None:
            for expected in (error.expected, error.actual):
                numbers = {"expected": exactly(expected), "bound": exactly(error.bound)}
                yield COMPARE.format(actual=actual, rows=rows, what=error.what, **numbers)
        return
    if isinstance(error, AssertionError):
        raise NoScript("what the law compares is no number")
    yield CRASH


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
