"""Issue 177 from nothing: fetch, measure each implementation in processes of its own, judge, and write down."""

from __future__ import annotations

import json
import math
import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import vq_reference
from vq_reference.testing.experiments.issue_177.dynamic import Run
from vq_reference.testing.experiments.issue_177.figure import draw
from vq_reference.testing.experiments.issue_177.measure_all import CouldNotRun, measure
from vq_reference.testing.experiments.issue_177.measured import MUTANTS, RELEASES, Measured, referenced, released
from vq_reference.testing.experiments.issue_177.reproduction import Reproduction, judge
from vq_reference.testing.experiments.issue_177.static import Row
from vq_reference.testing.experiments.issue_177.tables import dynamic_table, static_table
from vq_reference.testing.releases.fetch import ReleaseRefused, ReleaseUnavailable, pinned_sha256

ISSUE = "https://github.com/lucidrains/vector-quantize-pytorch/issues/177"


def reproduce_177(
    out: Path, offline: bool = False, seeds: Sequence[int] = (0, 1, 2), console: Console | None = None
) -> int:
    """Reproduce issue 177, print tables and verdict, write ``reproduce-177.json`` and ``reproduce-177.png`` to `out`.

    offline: measure the reference and its mutants in place of the released wheels; needs no network.
    seeds: one training run each, for every trained implementation and estimator.

    Returns 0 where the bug was reproduced (there where it was known, gone where it was fixed), 1 where it was not, and
    2 where it could not be run: then the message says why, and `out` is as it was.
    """
    console = console or Console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            source = referenced() if offline else released()
            subjects = list(progress.track(source, total=None if offline else len(RELEASES) + 1, description="fetch"))
            rows, runs = measure(subjects, seeds, progress)
        verdict = judge(subjects, rows, runs)
        console.print(static_table(rows), dynamic_table(runs), verdict.sentence)
        for subject in subjects:
            if subject.release and subject.release.unconfirmed:
                console.print(f"{subject.name} is the newest in the cache: {subject.release.unconfirmed}.")
        _write(out, _record(subjects, rows, runs, verdict), runs)
    except (ReleaseUnavailable, ReleaseRefused, CouldNotRun, OSError) as error:
        console.print(f"Could not run: {error}", markup=False)
        return 2
    console.print(f"Curves and numbers: {out / 'reproduce-177.png'} and .json", markup=False)
    return 0 if verdict.reproduced else 1


def _record(
    subjects: Sequence[Measured], rows: Sequence[Row], runs: Sequence[Run], verdict: Reproduction
) -> dict[str, Any]:
    return {
        "issue": ISSUE,
        "verdict": asdict(verdict),
        "versions": {
            "vq-reference": vq_reference.__version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            **{name: _installed(name) for name in ("torch", "numpy", "einops", "einx")},
        },
        "implementations": [
            {
                "name": s.name,
                "halves with the rotation": str(s.halves),
                "changed line": s.mutant and asdict(MUTANTS[s.mutant]),
                "wheel sha256": s.release and pinned_sha256(s.release.distribution, s.release.version),
            }
            for s in subjects
        ],
        "static": [
            {
                "implementation": row.subject,
                "estimator": row.estimator,
                "loss": row.loss,
                "mse": row.mse,
                "loss / mse": row.ratio,
                "norm of the gradient at x": row.norm("grad_x"),
                "norm of the gradient at the transform": row.norm("grad_transform"),
                "halves": str(row.halves() or "unknown"),
            }
            for row in rows
        ],
        "dynamic": [asdict(run) for run in runs],
    }


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _write(out: Path, record: dict[str, Any], runs: Sequence[Run]) -> None:
    """Write the picture and the numbers. Both are complete in memory, then on the disk, before either gets its name."""
    numbers = json.dumps(_representable(record), ensure_ascii=False, allow_nan=False) + "\n"
    names = ", ".join(dict.fromkeys(run.subject for run in runs))
    finished = {"reproduce-177.json": numbers.encode(), "reproduce-177.png": draw(runs, f"Issue 177 ({names})")}
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=out) as partial:
        for name, content in finished.items():
            Path(partial, name).write_bytes(content)
        for name in finished:
            os.replace(Path(partial, name), out / name)


def _representable(value: Any) -> Any:
    """Return `value` with null in place of NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _representable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_representable(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
