"""What all scripts of broken laws have in common: how they begin and end, and how they are tried out."""

from __future__ import annotations

import contextlib
import io
import sys
from typing import NamedTuple

OPENING = '''"""{sentence}

Law {law} of vq-reference, broken by {target} ({versions}).
Exits 1 while that is so, 0 when it is not.
"""

import sys

import numpy as np
import torch


def exactly(numbers):
    """Turn hexadecimal floats into a float64 tensor, every bit of them."""
    return torch.from_numpy(np.vectorize(float.fromhex, otypes=[float])(np.array(numbers)))


'''

COMPARE = """

expected = torch.as_tensor({expected}).double()
actual = torch.as_tensor({actual}).detach().double(){rows}
bound = {bound}
error = torch.where(actual == expected, 0.0, (actual - expected).abs())
broken = ~(error <= bound)
print({what!r})
print("expected", expected.tolist())
print("actual  ", actual.tolist())
print("bound   ", bound.tolist())
print("broken" if broken.any() else "holds")
sys.exit(int(broken.any()))
"""

ONE_OF = """

actual = {actual}
allowed = {allowed!r}
print({what!r})
print("expected", " or ".join(map(str, allowed)))
print("actual  ", actual)
print("bound    none: it is one of those or it is not")
print("holds" if actual in allowed else "broken")
sys.exit(int(actual not in allowed))
"""

NO_EXCEPTION = """
print("an answer, and no exception: holds")
sys.exit(0)
"""
HOLDS, BROKEN = 0, 1


class Ran(NamedTuple):
    """How a script ended: its exit code, 1 for an exception as Python does, its names, and the exception."""

    code: int
    names: dict[str, object]
    raised: BaseException | None


def run(source: str) -> Ran:
    """Run the script here, and leave the path as it was."""
    names: dict[str, object] = {"__name__": "__main__"}
    path = list(sys.path)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(source, "<script>", "exec"), names)
    except SystemExit as end:
        return Ran(int(end.code or 0), names, None)
    except KeyboardInterrupt:
        raise
    except BaseException as raised:  # what a layer raises need not be an Exception
        return Ran(BROKEN, names, raised)
    finally:
        sys.path[:] = path
    return Ran(HOLDS, names, None)
