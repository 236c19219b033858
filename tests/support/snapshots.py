"""Texts that people read, kept as files: a change of one is then seen in review, by whoever reads the change."""

import os
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "reporting" / "snapshots"


def assert_snapshot(name: str, text: str) -> None:
    """Compare with the file of that name; with VQ_UPDATE_SNAPSHOTS set, write it instead, to be reviewed."""
    file = FOLDER / f"{name}.txt"
    if os.environ.get("VQ_UPDATE_SNAPSHOTS"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8"), f"differs from {file.name}: review, and set VQ_UPDATE_SNAPSHOTS=1"
