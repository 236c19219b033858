"""The script of a law about layers that last: it does to somebody's module what the law did, step by step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from vq_reference.testing.adapters.codegen.run_script import BROKEN, COMPARE, HOLDS, NO_EXCEPTION, ONE_OF, Ran, run
from vq_reference.testing.adapters.codegen.source import NoScript, exactly
from vq_reference.testing.adapters.ready.vector_quantize import build, build_stack
from vq_reference.testing.adapters.torch.stateful_layer import CARRY, cast_to, compiled
from vq_reference.testing.interface.stateful import Lasting
from vq_reference.testing.laws.assertions import LawBroken, NoneOfThose
from vq_reference.testing.recording.trace import Trace
from vq_reference.testing.reporting.repro.replay import Replay
from vq_reference.testing.reporting.repro.replay_values import compared, form

# right layers, on which a script is tried out
RIGHT = Lasting(build, CARRY, cast_to, compiled, build_stack)


def lasting_script(opening: str, trace: Trace, lasting: Lasting, error: Exception) -> str:
    """Return the script for a law that ended with `error` after the steps of `trace`. Raises NoScript.

    Tried out as every script: it finds the fault here, and none in right layers of ours.
    """
    try:
        faulty, right = Replay(trace, lasting), Replay(trace, RIGHT)
    except Exception as reason:
        if isinstance(reason, NoScript):
            raise
        raise NoScript(f"the layer cannot be made again: {type(reason).__name__}: {reason}") from reason
    for end in _ends(faulty, error):
        shown = run(opening + faulty.lines(end))
        # of an exception: the one that the law met, and not what the script itself may stumble over
        if shown.code != BROKEN or not (shown.raised is None or type(shown.raised) is type(error)):
            continue
        held = run(opening + right.lines(end))
        # a name that ours does not have: of its state, or of a parameter that gets a gradient
        if held.code == HOLDS or isinstance(held.raised, KeyError):
            return opening + faulty.lines(end)
        end = _as_right_code_has_it(error, held, end) if _has_our_conventions(lasting) else ""
        if end and run(opening + faulty.lines(end)).code == BROKEN:
            return opening + faulty.lines(end)
    raise NoScript("the steps of the law, taken alone, do not show the fault")


def _ends(replay: Replay, error: Exception) -> Iterator[str]:
    """Yield what may show the fault."""
    if isinstance(error, LawBroken):
        bound = exactly(error.bound)
        for actual, expected in compared(replay, error):
            numbers = {"expected": expected or exactly(error.expected), "bound": bound, "what": error.what}
            yield COMPARE.format(actual=actual, rows="", **numbers)
    elif isinstance(error, NoneOfThose) and (actual := form(replay, error.what)):
        yield ONE_OF.format(actual=actual, allowed=error.allowed, what=error.what)
    elif isinstance(error, AssertionError):
        raise NoScript("what the law compares is no value of a step")
    else:
        yield NO_EXCEPTION


def _as_right_code_has_it(error: Exception, held: Ran, end: str) -> str:
    """Return the end with what right code gives as expected: where the choice was wrong, what follows from it was."""
    actual = held.names.get("actual")
    if held.raised is not None or not isinstance(error, LawBroken) or not isinstance(actual, torch.Tensor):
        return ""
    return end.replace(exactly(error.expected), exactly(np.asarray(actual)))


def _has_our_conventions(lasting: Lasting) -> bool:
    declared = (lasting.padded_output, lasting.padded_index, lasting.loss_in_eval, lasting.flow, lasting.stack_gain(3))
    return declared == (RIGHT.padded_output, RIGHT.padded_index, RIGHT.loss_in_eval, RIGHT.flow, RIGHT.stack_gain(3))
