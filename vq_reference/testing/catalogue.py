"""All laws there are, found by importing the modules that hold them."""

from __future__ import annotations

import importlib
import pkgutil

from vq_reference.testing.law import LAWS, Law

PACKAGES = ("vq_reference.properties",)


def laws() -> dict[str, Law]:
    """Return every law of this installation, by id, in the order of the ids."""
    for name in PACKAGES:
        package = importlib.import_module(name)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{name}.{module.name}")
    return dict(sorted(LAWS.items()))
