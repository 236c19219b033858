"""Compute the kill matrix, as far as it is not known yet, and write its page."""

from __future__ import annotations

import argparse
import multiprocessing
import time
from pathlib import Path

from studies.kill_matrix.cells import do, jobs, load, record, tidy
from studies.kill_matrix.page import page


def main() -> None:
    """Run the command line. Interrupted, it goes on where it was."""
    parser = argparse.ArgumentParser(prog="python -m studies.kill_matrix", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="when to stop, with what is known by then")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of the page and of its data")
    asked = parser.parse_args()
    data = asked.docs / "data" / "kill-matrix.jsonl"
    rows = load(data)
    left = [job for job in jobs() if job.what not in rows[job.mutant].done]
    end = time.monotonic() + 60 * asked.minutes
    # spawned: torch is not safe to fork once it has run
    with multiprocessing.get_context("spawn").Pool(asked.jobs) as pool:
        for i, (job, found) in enumerate(pool.imap_unordered(do, left) if asked.minutes else (), 1):
            record(data, job, found)
            print(f"{i} of {len(left)}: {job.mutant}, {job.what}: {found}", flush=True)
            if time.monotonic() > end:
                break
        pool.terminate()
    rows = load(data)
    tidy(data, rows)
    (asked.docs / "kill-matrix.md").write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
