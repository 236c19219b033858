"""Processes that train one codebook together: what a layer holds on each after every step. For laws, bounded in time.

Each process is a fresh interpreter, so that nothing of the caller's runs in it: it makes the implementation by itself,
joins a group of gloo over the loopback, and leaves without closing the group, in which gloo can wait for ever.
"""

from __future__ import annotations

import faulthandler
import os
import pickle
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from vq_reference.arguments import Array
from vq_reference.ema import Statistics
from vq_reference.testing.adapters.lasting import LastingLayer, Use, Wanted
from vq_reference.testing.trace import Again

RANKS = 2
LIMIT = 90.0  # seconds for all of it, the imports too; a law may take 120
TICK = 0.02
ENDED, NOT_ENDED = " ended with ", "do not end within"  # what is said of processes that failed
ONE = """
import sys
sys.path[:] = {path!r}
from vq_reference.testing.ranks import take_part
take_part({folder!r}, {rank})
"""


@dataclass(frozen=True)
class Training:
    """A layer, and the tokens that each rank gives it, (N, dim), step by step: steps[t][rank]."""

    wanted: Wanted
    steps: Sequence[tuple[Array, ...]]


class Held(NamedTuple):
    """What a layer holds after a step: codes (G, K, D), what each codebook remembers; and the indices of that step."""

    held_codes: Array
    remembered: tuple[Statistics, ...]
    indices: Array

    def codes(self) -> Array:
        """Return the codes, as a layer does."""
        return self.held_codes

    def statistics(self) -> tuple[Statistics, ...]:
        """Return what is remembered, as a layer does."""
        return self.remembered


def together(again: Callable[[], Any], trainings: Sequence[Training]) -> list[list[list[Held]]]:
    """Return [rank][training][step] of RANKS processes. again: makes the implementation; it is pickled.

    Raises AssertionError for processes that do not end, with where each stands, RuntimeError for one that raises.
    """
    step = again.note({"trainings": trainings}) if isinstance(again, Again) else None
    with tempfile.TemporaryDirectory(prefix="vq-ranks-") as name:
        folder = Path(name)
        (folder / "task").write_bytes(pickle.dumps((again, list(trainings))))
        processes = [_started(folder, rank) for rank in range(RANKS)]
        try:
            _wait(processes, folder)
        finally:
            for process in processes:
                process.kill()
                process.wait()
        found = [pickle.loads((folder / f"{rank}.held").read_bytes()) for rank in range(RANKS)]
    if step is not None:
        step.gave = found
    return found


def alone(build: Callable[[Wanted], LastingLayer], training: Training) -> list[Held]:
    """Return what this one process holds after each step on the tokens of all ranks, in their order."""
    import numpy as np

    return _held(build, training, np.concatenate, 0)


def take_part(name: str, rank: int) -> None:
    """Be one of the processes; never returns."""
    import torch
    import torch.distributed as dist

    folder = Path(name)
    faulthandler.dump_traceback_later(LIMIT - 5, file=(folder / f"{rank}.stack").open("w", encoding="utf-8"))
    try:
        torch.set_num_threads(1)
        if sys.platform == "linux":
            os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # a machine's own name need not resolve
        meet = (folder / "meet").as_uri()  # a file, since a free port need not stay free
        again, trainings = pickle.loads((folder / "task").read_bytes())
        dist.init_process_group("gloo", meet, timeout=timedelta(seconds=LIMIT), rank=rank, world_size=RANKS)
        # not before: a module may ask once, when it is made, whether there is a group
        build = again().lasting.build
        found = [_held(build, training, lambda tokens: tokens[rank], rank) for training in trainings]
        (folder / f"{rank}.held").write_bytes(pickle.dumps(found))
        dist.barrier()  # so that no rank leaves while the other still reads from it
    except BaseException:
        (folder / f"{rank}.error").write_text(traceback.format_exc(), encoding="utf-8")
        os._exit(1)
    os._exit(0)


def _held(build: Callable[[Wanted], LastingLayer], training: Training, mine: Any, rank: int) -> list[Held]:
    layer, found = build(training.wanted), []
    for tokens in training.steps:
        # random numbers of its own, as each rank has for its data
        reply = layer(mine(tokens), use=Use(salt=rank))
        found.append(Held(layer.codes(), layer.statistics(), reply.indices))
    return found


def _started(folder: Path, rank: int) -> subprocess.Popen[bytes]:
    code = ONE.format(path=[each or os.getcwd() for each in sys.path], folder=str(folder), rank=rank)
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, "-c", code], **quiet)  # type: ignore[call-overload,no-any-return]


def _wait(processes: Sequence[subprocess.Popen[bytes]], folder: Path) -> None:
    """Wait until all have ended well. A rank that has failed leaves the others waiting: they are not waited for."""
    begun = time.monotonic()
    ended: list[int | None] = [None]
    while None in ended:
        time.sleep(TICK)
        ended = [process.poll() for process in processes]
        for rank, code in enumerate(ended):
            if code:
                error = folder / f"{rank}.error"
                why = error.read_text("utf-8").strip().splitlines()[-1] if error.exists() else f"exit code {code}"
                raise RuntimeError(f"rank {rank} of {RANKS}{ENDED}{why}")
        if time.monotonic() > begun + LIMIT:
            stacks = "\n".join(file.read_text("utf-8") for file in sorted(folder.glob("*.stack")))
            raise AssertionError(f"{RANKS} processes {NOT_ENDED} {LIMIT:g} s\n{stacks}")
