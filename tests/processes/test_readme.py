"""Every command of the README does what the README says."""

import configparser
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line.strip() for line in README.splitlines() if re.match(r"    (python3|pip|pytest|vq-check) ", line)]
SET_UP, TESTS = (line for line in COMMANDS if line.startswith("python3"))


def test_the_continuous_integration_runs_the_readmes_test_command_and_nothing_else():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    commands = [line for line in script if line and not line.startswith(("#", "set ", "cd "))]
    assert commands == [TESTS]


def test_the_first_command_names_an_environment_of_tox():
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(ROOT / "tox.ini", encoding="utf-8")
    environment = shlex.split(SET_UP)[-1]
    assert f"testenv:{environment}" in settings


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith(("vq-check", "pytest"))])
def test_a_command_of_the_readme_runs(command, tmp_path):
    program, *arguments = shlex.split(command)
    module = {"vq-check": "vq_reference.testing", "pytest": "pytest"}[program]
    # one child: the other cores have tests of their own
    environment = {**os.environ, "VQ_CHECK_JOBS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_page_that_the_readme_links_to_is_there():
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / target).is_file(), target
