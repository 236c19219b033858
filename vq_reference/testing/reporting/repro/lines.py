"""The lines that do to a layer, in plain torch, what a law did: build and call it, decode, overwrite an answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vq_reference.testing.adapters.codegen.module_script import Script
from vq_reference.testing.adapters.codegen.source import NoScript, exactly
from vq_reference.testing.recording.calls import Border, Called, Overwritten, Step, Stepped

GRADIENT = '''def gradient(value, at):
    """Return the gradient, and zeros where none arrives."""
    if not (isinstance(value, torch.Tensor) and value.requires_grad and at.requires_grad):
        return torch.zeros_like(at)
    (arrived,) = torch.autograd.grad(value, at, retain_graph=True, allow_unused=True)
    return torch.zeros_like(at) if arrived is None else arrived


'''
JACOBIAN = '''def jacobian(output, x):
    """Return the Jacobian of each token's output at that token, (N, D, D), in float64.

    Tokens are asked at once, each for another entry and with another factor: one that is handed its neighbour's shows.
    """
    tokens, dim = torch.arange(len(x)), x.shape[1]
    factor = torch.tensor([1.0, -1.0, 2.0, -2.0], dtype=x.dtype)[tokens // dim % 4]
    rows = torch.zeros(len(x), dim, dim, dtype=torch.float64)
    for i in range(dim):
        entry = (tokens + i) % dim
        arrived = gradient((factor * output[tokens, entry]).sum(), x)
        rows[tokens, entry] = (arrived / factor[:, None]).double()
    return rows


'''
OVERWRITE = '''def overwrite(returned):
    """Overwrite, in place, every tensor in what a forward returned."""
    if isinstance(returned, torch.Tensor):
        returned = returned.detach()
        for axis, stride in enumerate(returned.stride()):
            if stride == 0 and returned.shape[axis] > 1:  # several entries in one place: torch writes to one at most
                returned = returned.narrow(axis, 0, 1)
        returned.fill_(torch.nan) if returned.is_floating_point() else returned.bitwise_not_()
    elif isinstance(returned, (tuple, list, dict)) or hasattr(returned, "__dict__"):
        parts = returned if isinstance(returned, (tuple, list)) else getattr(returned, "__dict__", returned).values()
        for each in parts:
            overwrite(each)


'''

TRAINED = "[each.detach().clone() for each in layer.parameters()]"
STEP = """with torch.no_grad():  # as an optimizer does
    for each, later in zip(layer.parameters(), stepped):
        each.copy_(later)
"""

# of `loss.shares`: what it measures → whether that is a gradient at x, or else at the codes
SIDES = {"encoder's share": True, "codebook's share": False}
SHARE = "routed / ((ahead - behind) / 2)"


def lines_of(
    write: Script, steps: Sequence[Step], dtype: str, start: int = 0, kept: str = "", reads: bool = True
) -> str:
    """Return the lines of these steps of one layer. Raises NoScript for what an adapter cannot write.

    start: which of a call's cotangents its backward begins from. kept: an
    expression that the lines keep of each call. reads: whether they look into what was returned.
    """
    lines = [OVERWRITE] if any(isinstance(step, Overwritten) for step in steps) else []
    lines += ["kept = []"] if kept else []
    written = None
    later = [step for step in steps if isinstance(step, Stepped)]
    called = next((step for step in steps if isinstance(step, Called)), None)
    if later and called is not None:  # what an optimizer will have made of the layer, before the layer itself
        x = f"x = {exactly(called.x)}.to(torch.{dtype})"
        lines += [x, write(later[-1].reference, called.x, called.how).make, f"stepped = {TRAINED}"]
    for step in steps:
        if isinstance(step, Called):
            lines += [f"x = {exactly(step.x)}.to(torch.{dtype}).requires_grad_()  # the smallest input found", ""]
            made, written = written, write(step.reference, step.x, step.how)
            lines += [] if made else [written.make]
            lines += [written.call, *([written.read, "", _start(step, start)] if reads else [])]
            lines += [f"kept.append(torch.atleast_1d(torch.as_tensor({kept}).detach().clone()))"] if kept else []
        elif isinstance(step, Overwritten):
            lines += ["overwrite(returned)"]
        elif isinstance(step, Stepped):
            lines += [STEP]
        elif written is None or written.decode is None:
            raise NoScript("the adapter writes no decoding")
        else:
            # where the choice was wrong, right code decodes others
            chosen = "indices" if step.returned else f"torch.tensor({step.indices.tolist()})"
            lines += [f"chosen = {chosen}", written.decode(len(step.indices))]
    return "\n".join([*lines, ""])


def shares(write: Script, border: Border, what: str, dtype: str) -> str:
    """Return the lines that compute a side's share of the loss's derivative, from the three calls it is made of.

    The loss's own gradient along the step, and the values of the loss a step ahead and a step behind.
    """
    begun = next(call for call in border.calls if call.cotangents)
    ahead, behind = border.calls[-2:]
    at_x = SIDES[what]
    step = (ahead.x - behind.x) / 2 if at_x else (ahead.reference.codebook - behind.reference.codebook) / 2
    return "\n".join(
        [
            lines_of(write, [begun], dtype),
            f"routed = ({'gradient(start, x)' if at_x else 'at_codes(start)'}.double() * {exactly(step)}).sum()",
            lines_of(write, [ahead], dtype),
            "ahead = loss.detach().double()",
            lines_of(write, [behind], dtype),
            "behind = loss.detach().double()",
            "",
        ]
    )


def _start(call: Called, which: int) -> str:
    """Say what the backward starts from, as the law's did."""
    if not call.cotangents:
        return "start = output.sum() + loss"
    g, at_loss = call.cotangents[which]
    terms = [f"(output * {exactly(np.asarray(g))}.to(output.dtype)).sum()"] if np.any(g) else []
    terms += [{0.0: "", 1.0: "loss"}.get(at_loss, f"{at_loss!r} * loss")]
    return f"start = {' + '.join(filter(None, terms)) or 'torch.zeros(())'}"
