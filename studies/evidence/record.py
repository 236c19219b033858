"""The numbers of a run: one JSON file an experiment, with what is needed to run it again."""

from __future__ import annotations

import json
import os
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import vq_reference

DOCS = Path(__file__).resolve().parents[2] / "docs"
DATA, FIGURES = DOCS / "data", DOCS / "figures"
#: Significant digits that are kept: float32 carries seven, and no reader needs more than six.
DIGITS = 6


def write(name: str, numbers: dict[str, Any]) -> Path:
    """Write ``docs/data/NAME.json``, complete or not at all, and return its path."""
    path = DATA / f"{name}.json"
    text = json.dumps({"versions": versions(), **_shortened(numbers)}, ensure_ascii=False, indent=1, allow_nan=False)
    # a list of numbers is a curve: one line each, so that the file can still be read
    text = re.sub(r"\[\s+([-\d][^][{}\"]*?)\s+\]", lambda curve: "[" + re.sub(r"\s+", " ", curve[1]) + "]", text)
    partial = path.with_suffix(".partial")
    partial.write_text(text + "\n", encoding="utf-8")
    os.replace(partial, path)
    return path


def read(name: str) -> Any:
    """Return the numbers of ``docs/data/NAME.json``."""
    return json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))


def versions() -> dict[str, str]:
    """Return what the numbers depend on beside the release under test."""
    installed = {name: version(name) for name in ("torch", "numpy")}
    return {"vq-reference": vq_reference.__version__, "python": platform.python_version(), **installed}


def _shortened(value: Any) -> Any:
    """Return `value` with floats of `DIGITS` digits, and lists of numbers left whole."""
    if isinstance(value, dict):
        return {key: _shortened(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shortened(item) for item in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
