"""Forward and backward of `vq_reference.nn.SimVQ` against the SimVQ of the installed vector-quantize-pytorch.

    python -m benchmarks.sim_vq [--json results.json]

Times: both modules on the same parameters and tokens, in this process, one after the other in each repeat, so that what
else the machine does falls on both; the ratio is the median over repeats of ours ÷ theirs. Memory: how far the resident
memory of a child process of its own rises above what it held before the first forward. Goal: at most 1.0 in both.
"""

from __future__ import annotations

import json
import platform
import re
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from vq_reference.nn import SimVQ

SIZES = [(1024, 32, 1024), (8192, 64, 4096), (16384, 256, 8192)]
GOAL = 1.0


@dataclass(frozen=True)
class Row:
    """One size, measured: medians in milliseconds, peaks in MiB, ratios ours ÷ theirs."""

    tokens: int
    dim: int
    codes: int
    repeats: int
    ours_ms: float
    theirs_ms: float
    time_ratio: float
    ours_mib: float
    theirs_mib: float
    memory_ratio: float


def build(name: str, dim: int, codes: int) -> torch.nn.Module:
    """Return one of the two modules; from the same seed both have the same parameters."""
    from vector_quantize_pytorch import SimVQ as Upstream  # type: ignore[import-untyped]

    kinds: dict[str, type[torch.nn.Module]] = {"ours": SimVQ, "theirs": Upstream}
    torch.manual_seed(0)
    return kinds[name](dim=dim, codebook_size=codes)


def draw(tokens: int, dim: int) -> torch.Tensor:
    """Return (1, tokens, dim) tokens of the codes' size."""
    x = torch.randn(1, tokens, dim, generator=torch.Generator().manual_seed(1))
    return x.mul_(dim**-0.5).requires_grad_()


def step(module: torch.nn.Module, x: torch.Tensor) -> None:
    """Run one forward and one backward of output and loss."""
    output, _, loss = module(x)
    torch.autograd.grad(output.sum() + loss, (x, *module.parameters()))


def milliseconds(module: torch.nn.Module, x: torch.Tensor) -> float:
    """Time one step."""
    start = time.perf_counter()
    step(module, x)
    return 1000 * (time.perf_counter() - start)


def peak() -> int:
    """Return the highest resident memory so far, in bytes. On Linux ru_maxrss would start at that of the parent."""
    if sys.platform == "linux":
        return 1024 * int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def rise(name: str, tokens: int, dim: int, codes: int) -> int:
    """Return by how many bytes one step on the full batch raises the peak; a step on one token has loaded the code."""
    module, x = build(name, dim, codes), draw(tokens, dim)
    step(module, x[:, :1])
    start = peak()
    step(module, x)
    return peak() - start


def rise_in_child(name: str, size: tuple[int, int, int], threads: int) -> float:
    """Return `rise` in MiB, measured in a fresh process."""
    argv = [sys.executable, __file__, "--rise", ",".join(map(str, (name, *size))), "--threads", str(threads)]
    return int(subprocess.run(argv, capture_output=True, text=True, check=True).stdout) / 2**20


def measure(tokens: int, dim: int, codes: int, repeats: int, threads: int) -> Row:
    """Measure one size."""
    modules, x = [build(name, dim, codes) for name in ("ours", "theirs")], draw(tokens, dim)
    for module in modules:
        step(module, x)
    times = [[milliseconds(module, x) for module in modules] for _ in range(repeats)]
    ours, theirs = (statistics.median(column) for column in zip(*times, strict=True))
    ours_mib, theirs_mib = (rise_in_child(name, (tokens, dim, codes), threads) for name in ("ours", "theirs"))
    return Row(
        tokens,
        dim,
        codes,
        repeats,
        ours,
        theirs,
        statistics.median(a / b for a, b in times),
        ours_mib,
        theirs_mib,
        ours_mib / theirs_mib,
    )


def show(console: Console, rows: list[Row], versions: dict[str, str]) -> None:
    """Print the table and whether the goal was reached."""
    table = Table(title="SimVQ, forward and backward: " + ", ".join(f"{k} {v}" for k, v in versions.items()))
    for heading in ("tokens × dim × codes", "ours", "theirs", "time", "ours", "theirs", "memory"):
        table.add_column(heading, justify="right")
    for r in rows:
        table.add_row(
            f"{r.tokens} × {r.dim} × {r.codes}",
            *(f"{r.ours_ms:.1f} ms", f"{r.theirs_ms:.1f} ms", f"{r.time_ratio:.2f}"),
            *(f"{r.ours_mib:.1f} MiB", f"{r.theirs_mib:.1f} MiB", f"{r.memory_ratio:.2f}"),
        )
    console.print(table)
    missed = [r for r in rows if max(r.time_ratio, r.memory_ratio) > GOAL]
    console.print(f"Goal, at most {GOAL} times upstream's time and memory: {'missed' if missed else 'reached'}.")


def main(
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the numbers here, too.")] = None,
    repeats: Annotated[int, typer.Option(help="At the largest size; more at smaller ones, by the tokens.")] = 7,
    threads: Annotated[int, typer.Option(help="torch threads; one is disturbed least.")] = 1,
    rise_of: Annotated[str, typer.Option("--rise", hidden=True)] = "",
) -> None:
    """Measure time and peak memory of both modules at three sizes."""
    torch.set_num_threads(threads)
    if rise_of:
        name, *size = rise_of.split(",")
        print(rise(name, *map(int, size)))
        return
    console = Console()
    versions = {"torch": torch.__version__, "Python": platform.python_version(), "threads": str(threads)}
    try:
        versions["vector-quantize-pytorch"] = metadata.version("vector-quantize-pytorch")
    except metadata.PackageNotFoundError:
        console.print("vector-quantize-pytorch is not installed: pip install vector-quantize-pytorch")
        raise typer.Exit(2) from None
    rows = []
    for tokens, dim, codes in SIZES:
        with console.status(f"measuring {tokens} tokens of {dim} dimensions, {codes} codes"):
            # a step of the smallest size is a millisecond's work: its median needs many
            smaller = SIZES[-1][0] // tokens
            rows.append(measure(tokens, dim, codes, repeats=repeats * smaller, threads=threads))
    show(console, rows, versions)
    if json_path:
        json_path.write_text(json.dumps({"versions": versions, "rows": [asdict(r) for r in rows]}, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
