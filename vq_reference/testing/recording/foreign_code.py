"""Somebody else's code, called: what it does to the process ends with the call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def theirs() -> Iterator[None]:
    """Put NumPy's error settings back, and turn an exit into an error like any other; Ctrl-C stays what it is.

    >>> with theirs():
    ...     raise SystemExit(0)
    Traceback (most recent call last):
    RuntimeError: it raised SystemExit(0)
    """
    with np.errstate():
        try:
            yield
        except (Exception, KeyboardInterrupt):
            raise
        except BaseException as odd:
            raise RuntimeError(f"it raised {odd!r}") from odd
