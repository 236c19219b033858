"""A call in a process of its own, in which a release is what its package's name means.

A server imports torch, and what releases import, once; it forks for each call. An import of all that takes several
times as long as most calls.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

from vq_reference.testing.releases import Release

#: The third is what torch's first backward imports. Those that are missing are passed over. No package is among them
#: whose releases are compared.
IMPORTED_BEFORE = ("numpy", "torch", "torch.fx.experimental.symbolic_shapes", "einops", "einx")

Answer = TypeVar("Answer")


class ProcessDied(Exception):
    """A process ended without an answer and without an exception."""


def in_own_process(function: Callable[..., Answer], *arguments: object, release: Release | None = None) -> Answer:
    """Return ``function(*arguments)``, called in a new process.

    function: at the top of a module that can be imported there; it, its arguments and its answer are pickled.
    release: comes first on that process's path; `Release.load` imports from it.

    Raises whatever the function raises, and ProcessDied where the interpreter ended in the middle.

    >>> in_own_process(abs, -3)
    3
    """
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if forks else "spawn")
    if forks:
        context.set_forkserver_preload(list(IMPORTED_BEFORE))
    path = release.path if release else None
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(_call, path, function, arguments).result()
        except BrokenProcessPool as died:
            raise ProcessDied(f"{function.__qualname__} ended its interpreter") from died


def _call(path: Path | None, function: Callable[..., Answer], arguments: tuple[object, ...]) -> Answer:
    if path:
        sys.path.insert(0, str(path))
    return function(*arguments)
