"""Environments side by side, as rows of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vq_reference.testing.experiments.drift.environments import Change, Environment, change
from vq_reference.testing.experiments.drift.record import ORACLE


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
