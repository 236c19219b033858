"""The page "Verify your own quantizer": each command is run, and prints what the page shows."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from run_script import alone

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "verify-your-own.md").read_text(encoding="utf-8")
CODEC = ROOT / "examples" / "codec"
LEFT_OUT = "…"
# what `vq-check` is in the environment of this test
VQ_CHECK = [sys.executable, "-m", "vq_reference.testing"]


def steps():
    """Yield each command with the lines that the page shows below it."""
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL):
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *shown = step.splitlines()
            yield command, shown


def pattern(line):
    """Return what a line of the page stands for: anything where something is left out."""
    return re.compile(".*".join(re.escape(part) for part in line.strip().split(LEFT_OUT)))


def ended(program, arguments, folder):
    """Run a command of the page in that folder; return how it ended."""
    if program == "python":
        return alone((folder / arguments[0]).read_text(encoding="utf-8"), folder)
    # a module that was changed within a second, and not in length, would not be compiled anew
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    return subprocess.run(
        [*(VQ_CHECK if program == "vq-check" else [program]), *arguments],
        cwd=folder,
        # one child: the other cores have tests of their own
        env={**os.environ, "COLUMNS": "200", "VQ_CHECK_JOBS": "1"},
        capture_output=True,
        encoding="utf-8",
    )


def test_the_page_prints_what_it_says(tmp_path):
    """In order, in a copy of the example's folder; an exit code is 1 while there is a bug, and 0 after."""
    folder = tmp_path / "codec"
    shutil.copytree(CODEC, folder, ignore=shutil.ignore_patterns("__pycache__"))
    mended = False
    for command, shown in steps():
        program, *arguments = shlex.split(command)
        done = ended(program, arguments, folder)
        right = mended or program == "cp" or "describe" in arguments
        assert done.returncode == (0 if right else 1), done.stdout + done.stderr
        mended = mended or program == "cp"
        printed = iter(line.strip() for line in done.stdout.splitlines())
        for line in shown:
            if line.strip() != LEFT_OUT:
                assert any(pattern(line).fullmatch(each) for each in printed), f"{command}: no {line!r} where it stands"


def test_the_code_on_the_page_is_that_of_its_files():
    """The adapter whole, and both lines that are mended."""
    adapter, mended, _ = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert adapter in (CODEC / "my_adapter.py").read_text(encoding="utf-8")
    right = (CODEC / "mended.py").read_text(encoding="utf-8")
    faulty = (CODEC / "my_codec.py").read_text(encoding="utf-8")
    for line in mended.splitlines():
        assert line in right
        assert line + "\n" not in faulty
    changed = set(right.splitlines()[1:]) - set(faulty.splitlines())
    assert {line.strip() for line in changed} == set(mended.splitlines())
