"""All laws there are, found by importing the modules that hold them."""

from __future__ import annotations

import importlib
import pkgutil

from vq_reference.testing.laws.law import LAWS, Law

PACKAGES = ("vq_reference.properties",)


def laws() -> dict[str, Law]:
    """Return every law of this installation, by id, in the order of the ids."""
    for name in PACKAGES:
        package = importlib.import_module(name)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{name}.{module.name}")
    return dict(sorted(LAWS.items()))


def as_markdown() -> str:
    """Return the catalogue as the page `docs/laws.md`, which a test holds to it."""
    lines = [
        "# Laws",
        "",
        "Every law of this version, made from the code by `vq-check laws --markdown`. A `must` law is the mathematics",
        "on inputs that occur in training; a `should` law is robustness that good code can reach. A law that needs",
        "what an implementation does not declare is not applicable to it.",
    ]
    family = ""
    for law in laws().values():
        if (found := law.id.split(".")[0]) != family:
            family = found
            lines += ["", f"## {family}", "", "| law | level | statement | source | needs |", "|---|---|---|---|---|"]
        needs = ", ".join(sorted(law.needs)) or "nothing"
        lines.append(f"| `{law.id}` | {law.level} | {law.sentence} | {law.source} | {needs} |".replace("‖", "&#8214;"))
    return "\n".join(lines) + "\n"
