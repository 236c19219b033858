"""The script of a law about several processes: it starts them, each trains somebody's module as the law did.

They are processes of the script's own file, and of gloo over the loopback. What they hold is compared in the process
that started them.
"""

from __future__ import annotations

import contextlib
import io
import runpy
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vq_reference.arguments import Array
from vq_reference.testing.adapters.codegen.run_script import BROKEN, COMPARE, HOLDS, NO_EXCEPTION
from vq_reference.testing.adapters.codegen.source import NoScript, exactly
from vq_reference.testing.adapters.torch.stateful_layer import leading_of
from vq_reference.testing.interface.stateful import Lasting, Use
from vq_reference.testing.laws.assertions import LawBroken
from vq_reference.testing.laws.distributed import ENDED, LIMIT, NOT_ENDED, RANKS, Held, Training
from vq_reference.testing.processes.own_process import Task, in_own_processes
from vq_reference.testing.recording.trace import Step, Trace
from vq_reference.testing.reporting.repro.processes import IMPORTS, PROCESSES
from vq_reference.testing.reporting.repro.replay import Replay, as_torch
from vq_reference.testing.reporting.repro.replay_values import kind_of, selections
from vq_reference.testing.reporting.repro.stateful_script import RIGHT

# Seconds in which the script of processes that do not end is tried out: the law has waited for them already.
SOON = 15.0


class FaultOfRanks(NamedTuple):
    """Where a law found a fault: in which training, after how many steps, and what shows it there."""

    training: Training
    steps: int
    end: str


def ranks_script(opening: str, step: Step, lasting: Lasting, error: Exception) -> str:
    """Return the script for a law that ended with `error` after it had processes train. Raises NoScript.

    Tried out as every script: it finds the fault here, and none in right layers of ours.
    """
    limit = SOON if NOT_ENDED in str(error) else LIMIT
    for found in _found(step, error):
        told = [_written(opening, found, each, limit) for each in (lasting, RIGHT)]
        (code, said), (held, _) = _tried(*told)
        # of an end: the one that the law met, and not what the script itself may stumble over
        words = NOT_ENDED if NOT_ENDED in said else said.partition(ENDED)[2].partition("\n")[0]
        same = step.gave is not None or (words and words in str(error))
        if (code, held) == (BROKEN, HOLDS) and same:
            return _written(opening, found, lasting, LIMIT)
    raise NoScript("the processes of the law, started alone, do not show the fault")


def _found(step: Step, error: Exception) -> Iterator[FaultOfRanks]:
    """Yield where the fault may show: in what two ranks hold, or in what one holds beside the numbers of the law."""
    trainings = step.given["trainings"]
    if step.gave is None:
        yield from (FaultOfRanks(each, len(each.steps), NO_EXCEPTION) for each in trainings)
        return
    if not isinstance(error, LawBroken):
        raise NoScript("what the law compares is held by no process")
    first, second = step.gave
    numbers = {"rows": "", "bound": exactly(error.bound), "what": error.what}
    for training, here, there in zip(trainings, first, second, strict=True):
        for t, (one, other) in enumerate(zip(here, there, strict=True)):
            for (text, value), (_, its) in zip(_values(one, error.what), _values(other, error.what), strict=True):
                if np.array_equal(value, error.expected) and np.array_equal(its, error.actual):
                    ranks = {"actual": f"held[1][-1]{text}", "expected": f"held[0][-1]{text}"}
                    yield FaultOfRanks(training, t + 1, COMPARE.format(**ranks, **numbers))
                for rows, _ in selections(value, error.actual):
                    written = {"actual": f"held[0][-1]{text}{rows}", "expected": exactly(error.expected)}
                    yield FaultOfRanks(training, t + 1, COMPARE.format(**written, **numbers))


def _values(held: Held, what: str) -> Iterator[tuple[str, Array]]:
    """Yield what a rank holds of this kind, as it is read from that step in the script."""
    kind = kind_of(what)
    if kind == "codes":
        yield "['codes']", held.codes()
        # of one codebook alone
        yield from ((f"['codes'][{i}]", codes) for i, codes in enumerate(held.codes()))
    else:
        yield from ((f"[{kind!r}][{i}]", getattr(each, kind)) for i, each in enumerate(held.statistics()))


def _written(opening: str, found: FaultOfRanks, lasting: Lasting, limit: float) -> str:
    """Return the lines for these layers. Raises NoScript where the adapter does to a module what no script can."""
    replay, wanted = Replay(Trace(), lasting), found.training.wanted
    layer = as_torch(lasting.build(wanted))
    shares = [
        ", ".join(f"({replay.number(x, 'x')}, {leading_of(x, Use())})" for x in step)
        for step in found.training.steps[: found.steps]
    ]
    lines = PROCESSES.format(
        limit=limit,
        ranks=RANKS,
        ended=ENDED,
        not_ended=NOT_ENDED,
        steps="\n".join(f"    [{each}]," for each in shares),
        make=replay.maker(lasting.build, wanted),
        call=replay.use(layer.access.call),
        codes=replay.use(layer.access.codes),
        statistics=replay.use(layer.access.statistics),
        dtype=layer.dtype,
    )
    return f"{opening}{IMPORTS}{replay.lines(lines + textwrap.indent(found.end, '    '))}"


def _tried(*sources: str) -> list[tuple[int, str]]:
    """Run scripts from files, which their processes may read again; return exit codes and what they printed."""
    with tempfile.TemporaryDirectory(prefix="vq-script-") as name:
        files = [Path(name) / f"script_{i}.py" for i in range(len(sources))]
        for file, source in zip(files, sources, strict=True):
            file.write_text(source, encoding="utf-8")
        # theirs fork the process that runs them, and this one may have threads
        ended = dict(in_own_processes([Task(run_file, (str(file),)) for file in files]))
    return [(HOLDS, str(each)) if isinstance(each, BaseException) else each for _, each in sorted(ended.items())]


def run_file(file: str) -> tuple[int, str]:
    """Run a script as its reader would; return its exit code and what it printed."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            runpy.run_path(file, run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0), said.getvalue()
    return BROKEN, said.getvalue()
