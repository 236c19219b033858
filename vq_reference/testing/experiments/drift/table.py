"""Environments side by side, as text for a terminal and for `docs/drift.md`."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence

from vq_reference.testing.experiments.drift.environments import Change, Environment, change
from vq_reference.testing.experiments.drift.record import ORACLE

COLUMNS = ("torch", "numpy", "python", "vector-quantize-pytorch")


def keys(environments: Sequence[Environment]) -> list[str]:
    """Return the pinned cases of all environments, in the order of their files."""
    return list(dict.fromkeys(key for environment in environments for key in environment.made))


def changes(environments: Sequence[Environment]) -> dict[str, list[Change]]:
    """Compare each environment after the first with the first, for each pinned case."""
    base, *others = environments
    return {key: [change(key, base, other) for other in others] for key in keys(environments)}


def oracle_moved(found: dict[str, list[Change]]) -> list[str]:
    """Return the cases in which the oracle moved, which no release of anything excuses."""
    rows = {key: row for key, row in found.items() if key.startswith(ORACLE)}
    return [key for key, row in rows.items() if any(each.moved or each.lacks for each in row)]


def table(environments: Sequence[Environment], found: dict[str, list[Change]]) -> Iterator[list[str]]:
    """Yield rows of text: a heading, and one row for each pinned case."""
    others = environments[1:]
    yield ["case", *(other.name for other in others)]
    for key, row in found.items():
        yield [key, *map(str, row)]


def markdown(environments: Sequence[Environment], day: datetime.date) -> str:
    """Return the page `docs/drift.md`."""
    found = changes(environments)
    base = environments[0]
    versions = [["environment", *COLUMNS]]
    versions += [[e.name, *(e.versions.get(name, "none") for name in COLUMNS)] for e in environments]
    counts = {"=": 0, "≈": 0, "moved": 0, "lacks": 0}
    for row in found.values():
        for each in row:
            counts[str(each).split()[0]] += 1
    lacks = sorted({(key.rsplit(" ", 1)[0], each.lacks) for key, row in found.items() for each in row if each.lacks})
    return "\n".join(
        [
            "# Where torch moved",
            "",
            "The same pinned layers and tokens, computed in each environment of `tox.ini`: output, indices, loss, and",
            f"the gradients at the tokens, the codes and the transform, each compared with `{base.name}`. Made on",
            f"{day} by `vq-check drift --markdown` from the files that the environments wrote.",
            "",
            "- `=` equal to the bit;",
            "- `≈ 0.2 ∂ℓ/∂W` equal within the bound: the largest difference is 0.2 of what the rounding of both may",
            "  make, and is in the gradient at the transform;",
            "- `moved` farther than that;",
            "- `lacks`: one of the two cannot compute it, for the reason below.",
            "",
            f"{counts['=']} comparisons are equal to the bit, {counts['≈']} within the bound, {counts['moved']} moved,",
            f"and {counts['lacks']} lack what they need. The oracle {_of_oracle(found)}.",
            "",
            *_lines(versions),
            "",
            *_lines(list(table(environments, found))),
            "",
            *(f"- {key}: {reason}" for key, reason in lacks),
            "",
        ]
    )


def _of_oracle(found: dict[str, list[Change]]) -> str:
    moved = oracle_moved(found)
    if moved:
        return f"moved in {', '.join(moved)}"
    equal = all(not each.of for key, row in found.items() if key.startswith(ORACLE) for each in row)
    return "is equal to the bit everywhere" if equal else "stays within its bound everywhere"


def _lines(rows: list[list[str]]) -> Iterator[str]:
    heading, *body = rows
    yield f"| {' | '.join(heading)} |"
    yield "|" + "---|" * len(heading)
    for row in body:
        yield f"| {' | '.join(row)} |"
