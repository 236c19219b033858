"""Processes that train one codebook together: what a layer holds on each after every step. For laws, bounded in time.

Nothing of the caller's runs in a process: it makes the implementation by itself, joins a group of gloo over the
loopback, and leaves without closing the group, in which gloo can wait for ever.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from vq_reference.arguments import Array
from vq_reference.ema import Statistics
from vq_reference.testing.interface.stateful import LastingLayer, Use, Wanted
from vq_reference.testing.processes.own_process import ProcessDied, Task, TookTooLong, in_own_processes
from vq_reference.testing.recording.trace import Again

RANKS = 2
LIMIT = 90.0  # seconds for all of it, the imports too; a law may take 120
ENDED, NOT_ENDED = " ended with ", "do not end within"  # what is said of processes that failed


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
    found: dict[int, list[list[Held]]] = {}
    with tempfile.TemporaryDirectory(prefix="vq-ranks-") as folder:
        meet = (Path(folder) / "meet").as_uri()  # a file, since a free port need not stay free
        calls = [Task(take_part, (meet, rank, again, list(trainings))) for rank in range(RANKS)]
        try:
            # a rank that has failed leaves the others waiting: they are not waited for
            with closing(in_own_processes(calls, at_once=RANKS, limit=LIMIT)) as ended:
                for rank, gave in ended:
                    if isinstance(gave, BaseException):
                        raise RuntimeError(f"rank {rank} of {RANKS}{ENDED}{_said(gave)}") from gave
                    found[rank] = gave
        except TookTooLong as stacks:
            raise AssertionError(f"{RANKS} processes {NOT_ENDED} {LIMIT:g} s\n{stacks}") from None
    if step is not None:
        step.gave = [found[rank] for rank in range(RANKS)]
    return [found[rank] for rank in range(RANKS)]


def alone(build: Callable[[Wanted], LastingLayer], training: Training) -> list[Held]:
    """Return what this one process holds after each step on the tokens of all ranks, in their order."""
    import numpy as np

    return _held(build, training, np.concatenate, 0)


def take_part(meet: str, rank: int, again: Callable[[], Any], trainings: Sequence[Training]) -> list[list[Held]]:
    """Be one of the processes, which meet at a file; return what the layer holds."""
    import torch.distributed as dist

    if sys.platform == "linux":
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # a machine's own name need not resolve
    dist.init_process_group("gloo", meet, timeout=timedelta(seconds=LIMIT), rank=rank, world_size=RANKS)
    # not before: a module may ask once, when it is made, whether there is a group
    build = again().lasting.build
    found = [_held(build, training, lambda tokens: tokens[rank], rank) for training in trainings]
    dist.barrier()  # so that no rank leaves while the other still reads from it
    return found


def _held(build: Callable[[Wanted], LastingLayer], training: Training, mine: Any, rank: int) -> list[Held]:
    layer, found = build(training.wanted), []
    for tokens in training.steps:
        # random numbers of its own, as each rank has for its data
        reply = layer(mine(tokens), use=Use(salt=rank))
        found.append(Held(layer.codes(), layer.statistics(), reply.indices))
    return found


def _said(error: BaseException) -> str:
    if isinstance(error, ProcessDied):
        return error.how
    return "".join(traceback.format_exception_only(type(error), error)).strip().splitlines()[-1]
