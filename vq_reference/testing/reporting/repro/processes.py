"""The text of a script that starts processes: what it imports, what each does, and how they are waited for."""

from __future__ import annotations

IMPORTS = """import multiprocessing
import os
import pickle
import tempfile
import time
import traceback
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist
"""
PROCESSES = '''
LIMIT, RANKS = {limit!r}, {ranks}  # seconds, processes
# step by step, the tokens of each rank and how they lie
steps = [
{steps}
]


def train(rank):
    """Return what a layer holds after each step on the tokens of this rank."""
    layer, held = {make}(), []
    for shares in steps:
        x, leading = shares[rank]
        called(layer, {call}, x, leading, {dtype}, salt=rank)
        pairs = {statistics}(layer)
        counts, sums = ([array(pair[i]) for pair in pairs] for i in range(2))
        held.append({{"codes": array({codes}(layer)), "counts": counts, "sums": sums}})
    return held


def take_part(rank, folder):
    """Be one of the processes; leave without closing the group, in which gloo can wait for ever."""
    try:
        torch.set_num_threads(1)
        if sys.platform == "linux":
            os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # a machine's own name need not resolve
        meet = (folder / "meet").as_uri()  # a file, since a free port need not stay free
        dist.init_process_group("gloo", meet, timeout=timedelta(seconds=LIMIT), rank=rank, world_size=RANKS)
        (folder / f"{{rank}}.held").write_bytes(pickle.dumps(train(rank)))
        dist.barrier()  # so that no rank leaves while the other still reads from it
    except BaseException:
        (folder / f"{{rank}}.error").write_text(traceback.format_exc(), encoding="utf-8")
        os._exit(1)
    os._exit(0)


def failed(text):
    """Say how the processes ended, and exit."""
    print(f"{{text}}\\nbroken")
    sys.exit(1)


def together():
    """Return what each rank holds after each step."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        processes = [multiprocessing.Process(target=take_part, args=(rank, folder)) for rank in range(RANKS)]
        for process in processes:
            process.start()
        codes, until = [None], time.monotonic() + LIMIT
        while None in codes and not any(codes) and time.monotonic() < until:
            time.sleep(0.02)
            codes = [process.exitcode for process in processes]
        for process in processes:
            process.kill()
            process.join()
        for rank, code in enumerate(codes):
            if code:
                error = folder / f"{{rank}}.error"
                text = error.read_text("utf-8").strip() if error.exists() else f"exit code {{code}}"
                failed(f"{{text}}\\nrank {{rank}} of {{RANKS}}{ended}{{text.splitlines()[-1]}}")
        if None in codes:
            failed(f"{{RANKS}} processes {not_ended} {{LIMIT:g}} s")
        return [pickle.loads((folder / f"{{rank}}.held").read_bytes()) for rank in range(RANKS)]


if __name__ == "__main__":
    held = together()
'''
