"""Stop unless Python, torch and NumPy are the ones that an environment of tox.ini is named after.

    python tests/tox/environment.py py3.12-torch2.4-numpy2

A factor names a version as far as it is written out, "torch2.15+" that one or a later one, "nightly" a torch that is
not released; other factors name no version. A name without a torch stands for the one of the README. The package under
test has to come from the environment: a checkout that is imported in its place tests no wheel.
"""

import importlib.metadata
import platform
import re
import sys
from pathlib import Path

import numpy
import torch

import vq_reference

STAND_FOR = {"oldest": "torch2.0-numpy1", "newest": "torch2.15+", "packages": "torch2.10"}
DEFAULT = "torch2.13"


def unmet(factor, found):
    """Return what a factor asks for and is not there, in words, or nothing where it is."""
    if factor == "nightly":
        return "" if ".dev" in found["torch"] else f"expected a nightly torch, found {found['torch']}"
    asked = re.fullmatch(r"(py|torch|numpy)(\d+(?:\.\d+)*)(\+?)", factor)
    if asked is None:
        return ""
    name, version, or_later = asked.groups()
    wanted, there = numbers(version), numbers(found[name])
    kept = there >= wanted if or_later else there[: len(wanted)] == wanted
    return "" if kept else f"expected {name} {version}{' or later' * bool(or_later)}, found {found[name]}"


def numbers(version):
    """Return the release part of a version as numbers: "2.13.0+cpu" is (2, 13, 0)."""
    return tuple(map(int, re.match(r"\d+(?:\.\d+)*", version)[0].split(".")))


def factors(name):
    """Return what the name of an environment asks for."""
    asked = STAND_FOR.get(name, name).split("-")
    return asked if any(re.match("torch|nightly", factor) for factor in asked) else [*asked, DEFAULT]


def main(name):
    """Print the versions, and end with a message where one is not the one that is named."""
    found = {"py": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__}
    print(*(f"{name} {version}" for name, version in found.items()), sep=", ")
    faults = [fault for factor in factors(name) if (fault := unmet(factor, found))]
    place = Path(vq_reference.__file__)
    if not place.is_relative_to(sys.prefix):
        faults.append(f"vq_reference {importlib.metadata.version('vq-reference')} is imported from {place.parent}")
    if faults:
        sys.exit("; ".join(faults))


if __name__ == "__main__":
    main(*sys.argv[1:])
