"""A child process: one implementation, one job. ``python -m evidence.worker`` reads the job as JSON on standard input.

job: ``{"release": …, "mutant": null, "task": name, "settings": [...]}``, the release as
`vq_reference.testing.reproduce.subject.Subject.job` gives it (null: `vq_reference.nn`).
answer on standard output: a list, what the task returned for each setting.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch

from vq_reference.testing.releases import Release, fetch
from vq_reference.testing.reproduce.static import BOTH
from vq_reference.testing.reproduce.subject import PACKAGE, Subject, implementation

#: What a child may be asked for: a name, and the function of (SimVQ, **setting) that answers, as module:function.
TASKS = ("train", "rotation", "loss", "accuracy", "silence")


def ask(release: str | None, task: str, settings: Sequence[dict[str, Any]]) -> Any:
    """Return what `task` answers to each of `settings` on a release, or on `vq_reference.nn`, in a process of its own.

    Raises RuntimeError with the last message of a child that failed.
    """
    fetched: Release | None = fetch(f"{PACKAGE}=={release}") if release else None
    job = {**Subject(release or "reference", BOTH, trained=False, release=fetched).job(), "task": task}
    done = subprocess.run(
        [sys.executable, "-m", "evidence.worker"],
        input=json.dumps({**job, "settings": list(settings)}),
        env=fetched.environment() if fetched else None,
        cwd=Path(__file__).resolve().parents[1],
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    if done.returncode:
        raise RuntimeError(f"{task} on {release or 'vq_reference.nn'} ended with exit code {done.returncode}")
    return json.loads(done.stdout)


def _tasks() -> dict[str, Any]:
    from evidence import accuracy, estimator, silence, training

    return {
        "train": lambda SimVQ, **setting: training.train(SimVQ, training.Setting(**setting)),
        "rotation": estimator.rotation,
        "loss": estimator.loss,
        "accuracy": accuracy.errors,
        "silence": silence.tokens,
    }


def main() -> None:
    """Do one job."""
    # small arrays: a second thread costs more than it brings
    torch.set_num_threads(1)
    job = json.load(sys.stdin)
    # whatever an implementation prints must not get into the answer
    with redirect_stdout(sys.stderr), implementation(job) as SimVQ:
        task = _tasks()[job["task"]]
        answers = [task(SimVQ, **setting) for setting in job["settings"]]
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
