"""Calls in processes of their own, in which a release is what its package's name means.

This file is also what those processes run: a fresh interpreter, in which nothing of the caller's is at work, imports
torch, and what releases import, once, and forks for each call. An import of all that takes several times as long as
most calls. Together they are one process group, which ends with the last call, or with the caller.
"""

from __future__ import annotations

import faulthandler
import importlib
import math
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from vq_reference.testing.releases.fetch import Release

#: The third is what torch's first backward imports. Those that are missing are passed over. No package is among them
#: whose releases are compared.
IMPORTED_BEFORE = ("numpy", "torch", "torch.fx.experimental.symbolic_shapes", "einops", "einx", "torch_einops_utils")
TICK = 0.02
BEFORE_THE_LIMIT = 5.0  # seconds, when each process writes down where it stands
SERVER = """
import sys
sys.path[:] = {path!r}
import runpy
runpy.run_path({file!r}, run_name="__main__")
"""

Answer = TypeVar("Answer")


class ProcessDied(Exception):
    """A process ended without an answer and without an exception. how: its exit code, in words."""

    def __init__(self, who: str, how: str) -> None:
        super().__init__(f"{who} ended its interpreter ({how})")
        self.how = how


class TookTooLong(Exception):
    """Processes did not end in time; the message is where each of them stood."""


@dataclass(frozen=True)
class Task:
    """What is called in a process.

    function: at the top of a module that can be imported there; it, its arguments and its answer are pickled.
    release: comes first on that process's path; `Release.load` imports from it.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    release: Release | None = None


def in_own_process(function: Callable[..., Answer], *arguments: object, release: Release | None = None) -> Answer:
    """Return ``function(*arguments)``, called in a new process; release: as of a `Task`.

    Raises whatever the function raises, and ProcessDied where the interpreter ended in the middle.

    >>> in_own_process(abs, -3)
    3
    """
    ((_, answer),) = in_own_processes([Task(function, arguments, release)])
    if isinstance(answer, BaseException):
        raise answer
    result: Answer = answer
    return result


def in_own_processes(
    calls: Sequence[Task], at_once: int = 1, limit: float = math.inf
) -> Generator[tuple[int, Any], None, None]:
    """Yield, as each call ends, its place among `calls`, and what it returned or what it raised, as an exception.

    Each has one thread, and what it prints is dropped. at_once: how many run side by side. limit: seconds for all of
    them, the start of the interpreter too. Those that still run are killed when the iterator is closed.

    ProcessDied is yielded for a call that ended its interpreter, and raised where none could be made; raises
    TookTooLong.
    """
    with tempfile.TemporaryDirectory(prefix="vq-calls-") as name, (Path(name) / "said").open("w") as said:
        folder = Path(name)
        until = time.monotonic() + limit  # the same clock in every process
        code = SERVER.format(path=[each or os.getcwd() for each in sys.path], file=__file__)
        for i, call in enumerate(calls):
            given = pickle.dumps((call.function, call.arguments))
            # in two parts: what is called may import from the release
            (folder / f"{i}.call").write_bytes(pickle.dumps((call.release and str(call.release.path), until, given)))
        server = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code, name, str(len(calls)), str(at_once)],
            # the arrays are small: a second thread costs more than it brings
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,
        )
        try:
            yield from _ended(calls, folder, server, until)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.communicate()


def _ended(
    calls: Sequence[Task], folder: Path, server: subprocess.Popen[bytes], until: float
) -> Iterator[tuple[int, Any]]:
    left = list(range(len(calls)))
    while left:
        over = server.poll() is not None  # first: what it left before its end is then all there to be read
        for i in [i for i in left if (folder / f"{i}.ended").exists()]:
            left.remove(i)
            how, value, text = pickle.loads((folder / f"{i}.ended").read_bytes())
            if how == "died":
                value = ProcessDied(calls[i].function.__qualname__, value)
            elif how == "raised":
                value.__cause__ = RuntimeError(f"in its process:\n{text}")
            yield i, value
        if over and left:
            words = (folder / "said").read_text("utf-8", errors="replace").strip().splitlines()
            raise ProcessDied("what was to start processes", words[-1] if words else f"exit code {server.returncode}")
        if time.monotonic() > until:
            raise TookTooLong("\n".join(file.read_text("utf-8") for file in sorted(folder.glob("*.stack"))))
        time.sleep(TICK)


def _serve(folder: Path, calls: int, at_once: int) -> None:
    """Fork for each call, and note which ended without a word."""
    if not os.fork():
        os.read(0, 1)  # until the caller ends, however it does
        os.killpg(0, signal.SIGKILL)
    for module in IMPORTED_BEFORE:
        with suppress(ImportError):
            importlib.import_module(module)
    waiting, running = list(range(calls)), dict[int, int]()
    while waiting or running:
        if waiting and len(running) < at_once:
            i = waiting.pop(0)
            child = os.fork()
            if not child:
                _call(folder, i)
            running[child] = i
        else:
            child, status = os.wait()
            i = running.pop(child)
            if not (folder / f"{i}.ended").exists():
                _end(folder, i, pickle.dumps(("died", f"exit code {os.waitstatus_to_exitcode(status)}", "")))


def _call(folder: Path, i: int) -> None:
    """Be one of the processes; never returns, and runs nothing that was to run at the interpreter's end."""
    import numpy as np

    try:
        np.random.seed()  # noqa: NPY002  # as in an interpreter of its own; Python does so by itself
        release, until, given = pickle.loads((folder / f"{i}.call").read_bytes())
        if release:
            sys.path.insert(0, release)
        if until < math.inf:
            stack = (folder / f"{i}.stack").open("w", encoding="utf-8")
            faulthandler.dump_traceback_later(max(until - BEFORE_THE_LIMIT - time.monotonic(), TICK), file=stack)
        function, arguments = pickle.loads(given)
        ended = pickle.dumps(("returned", function(*arguments), ""))
    except BaseException as error:
        ended = _raised(error)
    _end(folder, i, ended)
    os._exit(0)


def _raised(error: BaseException) -> bytes:
    text = traceback.format_exc()
    try:
        pickled = pickle.dumps(("raised", error, text))
        pickle.loads(pickled)
    except Exception:  # not every exception can be made again from what it was made of
        pickled = pickle.dumps(("raised", RuntimeError(f"{type(error).__name__}: {error}"), text))
    return pickled


def _end(folder: Path, i: int, ended: bytes) -> None:
    """Write down how a call ended, complete before it has its name."""
    (folder / f"{i}.part").write_bytes(ended)
    (folder / f"{i}.part").rename(folder / f"{i}.ended")


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
