"""Cases on releases, in one process: ``python -m vq_reference.testing.cases.worker``.

Reads jobs as JSON on standard input, ``[{"distribution": ..., "version": ..., "path": ..., "cases": [...]}, ...]``, and
writes ``[{case id: what was measured, or a string}, ...]`` on standard output, in that order. A job with ``"replay":
{case id: dtype}`` is replayed as well: then it is ``{case id: [what was measured, what replay says], or a string}``.

Torch is imported once, and every release in a fork of this process: an import of torch takes longer than all cases.
"""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import sys
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from vq_reference.testing.cases.case import Case, encoded
from vq_reference.testing.cases.makers import lucidrains
from vq_reference.testing.cases.measure import measure
from vq_reference.testing.cases.replay import replay
from vq_reference.testing.releases import Release

# what releases import, and no release changes
SHARED = ("einops", "einx", "torch_einops_utils")


def on_release(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the release gives for each case: encoded quantities, or, where it raises, what it says."""
    release = Release(job["distribution"], job["version"], Path(job["path"]))
    sys.path.insert(0, str(release.path))
    cases = [Case.from_json(each) for each in job["cases"]]
    try:
        release.load("vector_quantize_pytorch")
    except Exception as error:
        return dict.fromkeys((case.id for case in cases), _said(error))
    found: dict[str, Any] = {}
    for case in cases:
        try:
            found[case.id] = encoded(measure(case, lucidrains()))
            if "replay" in job:
                found[case.id] = [found[case.id], replay(case, lucidrains(), job["replay"][case.id])]
        except Exception as error:
            found[case.id] = _said(error)
    return found


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".split("\n")[0]


def _answer(job: Mapping[str, Any], to: Connection) -> None:
    with redirect_stdout(sys.stderr):
        to.send(on_release(job))


def main() -> None:
    """Do the jobs, one after another."""
    torch.set_num_threads(1)  # a fork keeps no threads but its own
    warnings.simplefilter("ignore")  # what old releases warn of is their business
    for package in SHARED:
        if importlib.util.find_spec(package):
            importlib.import_module(package)
    answers = []
    context = multiprocessing.get_context("fork")
    for job in json.load(sys.stdin):
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=_answer, args=(job, sender))
        child.start()
        sender.close()
        try:
            answers.append(receiver.recv())
        except EOFError:  # it ended its interpreter
            answers.append(dict.fromkeys((each["id"] for each in job["cases"]), "no answer"))
        child.join()
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
