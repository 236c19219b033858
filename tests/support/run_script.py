"""Run a script as its reader would, by itself, without paying for the import of torch each time.

A server process that has imported torch, NumPy and what releases import, and nothing of this project, forks for each
script.
"""

import contextlib
import multiprocessing
import os
import runpy
import shutil
import sys
import traceback
import warnings
from typing import NamedTuple

LIMIT_S = 120


class Ended(NamedTuple):
    """How a script ended."""

    returncode: int
    stdout: str
    stderr: str


def alone(source, folder, release=None):
    """Write a script to a folder and run it there, warnings as errors, or on a release; return how it ended."""
    # not above: the process that runs the script imports this module too
    from vq_reference.testing.processes.own_process import IMPORTED_BEFORE

    (folder / "reported.py").write_text(source, encoding="utf-8")
    # a module that was changed within a second, and not in length, would not be compiled anew
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED_BEFORE))
    said = [folder / name for name in ("stdout.txt", "stderr.txt")]
    path = [str(folder), *([str(release.path)] if release else [])]
    process = context.Process(target=_run, args=(path, *map(str, said)))
    process.start()
    process.join(LIMIT_S)
    assert process.exitcode is not None, f"the script took more than {LIMIT_S} s"
    return Ended(process.exitcode, *(file.read_text("utf-8") for file in said))


def _run(path, stdout, stderr):
    """Be that script, and end as it does."""
    assert not [name for name in sys.modules if name.partition(".")[0] == "vq_reference"]
    os.chdir(path[0])
    sys.path[:0] = path
    sys.argv, sys.dont_write_bytecode = ["reported.py"], True
    multiprocessing.set_start_method(None, force=True)  # a process of its own it starts as any interpreter does
    # an old release uses what a newer torch warns of
    warnings.simplefilter("error" if len(path) == 1 else "ignore")
    # Python 3.12 and 3.13 fork by themselves, and warn of the threads that NumPy has
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    code = 0
    with (
        open(stdout, "w", encoding="utf-8") as out,
        open(stderr, "w", encoding="utf-8") as err,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            runpy.run_path(os.path.join(path[0], "reported.py"), run_name="__main__")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
            code = 1
    sys.exit(code)
