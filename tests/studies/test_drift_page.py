"""The page on where torch moved: made of records, and about seven torches."""

import re
import subprocess
import sys
from pathlib import Path

from vq_reference.testing.experiments.drift import record

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "drift.md"


def test_the_page_of_one_environment_twice_says_that_nothing_moved(tmp_path):
    here, same = tmp_path / "here.json", tmp_path / "same.json"
    record.write(here)
    same.write_bytes(here.read_bytes())
    # by its path: beside it lies the checkout, which is not to be found in place of the wheel
    command = [sys.executable, str(ROOT / "studies" / "drift_page.py"), str(here), str(same)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert "The oracle is equal to the bit everywhere." in done.stdout


def test_the_page_is_about_seven_torches_and_the_oracle_moved_in_none():
    text = PAGE.read_text(encoding="utf-8")
    torches = re.findall(r"^\| [^|]+ \| (2\.\d+)\.", text, re.MULTILINE)
    assert len(set(torches)) >= 7
    assert re.search(r"The oracle (is equal to the bit|stays within its bound) everywhere\.", text)
