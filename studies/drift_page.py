"""The page docs/drift.md, from files that `vq-check drift --write` wrote: ``python -m studies.drift_page FILES``."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Iterator, Sequence
from pathlib import Path

from vq_reference.testing.experiments.drift.environments import Change, Environment
from vq_reference.testing.experiments.drift.record import ORACLE
from vq_reference.testing.experiments.drift.table import changes, oracle_moved, table

COLUMNS = ("torch", "numpy", "python", "vector-quantize-pytorch")


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
            f"{day} by `python -m studies.drift_page` from the files that the environments wrote.",
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


def main() -> None:
    """Run the command line: print the page."""
    parser = argparse.ArgumentParser(prog="python -m studies.drift_page", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="records of environments; the first is compared with")
    environments = [Environment.read(path) for path in parser.parse_args().files]
    print(markdown(environments, datetime.date.today()), end="")


if __name__ == "__main__":
    main()
