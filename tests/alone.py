"""Run a script as its reader would, by itself, without paying for the import of torch each time.

A server process that has imported torch and NumPy, sympy which torch may, and nothing of this project, forks for each
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


def alone(source, folder):
    """Write a script to a folder and run it there, warnings as errors; return how it ended."""
    (folder / "reported.py").write_text(source, encoding="utf-8")
    # a module that was changed within a second, and not in length, would not be compiled anew
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["numpy", "torch", "sympy"])
    said = [folder / name for name in ("stdout.txt", "stderr.txt")]
    process = context.Process(target=_run, args=(str(folder), *map(str, said)))
    process.start()
    process.join(LIMIT_S)
    assert process.exitcode is not None, f"the script took more than {LIMIT_S} s"
    return Ended(process.exitcode, *(file.read_text("utf-8") for file in said))


def _run(folder, stdout, stderr):
    """Be that script, and end as it does."""
    assert not [name for name in sys.modules if name.partition(".")[0] == "vq_reference"]
    os.chdir(folder)
    sys.path.insert(0, folder)
    sys.argv, sys.dont_write_bytecode = ["reported.py"], True
    warnings.simplefilter("error")
    code = 0
    with (
        open(stdout, "w", encoding="utf-8") as out,
        open(stderr, "w", encoding="utf-8") as err,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            runpy.run_path("reported.py", run_name="__main__")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
            code = 1
    sys.exit(code)
