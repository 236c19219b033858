"""Which laws a run is about: by id, by pattern, or by an expression over parts of ids."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase


class NothingSelected(ValueError):
    """A pattern or an expression that selects no law. The message names it."""


def select(ids: Iterable[str], patterns: Sequence[str] = (), expression: str = "") -> tuple[str, ...]:
    """Return those ids that match one of the patterns, if any are given, and the expression, if it is given.

    patterns: ids, or with `*` as in file names. expression: parts of ids with `and`, `or`, `not` and parentheses.
    Raises NothingSelected for a pattern that matches no id, or an expression that leaves none.

    >>> ids = ["loss.formula", "loss.zero", "rotation.output", "rotation.proper"]
    >>> select(ids, ["rotation.*", "loss.zero"])
    ('loss.zero', 'rotation.output', 'rotation.proper')
    >>> select(ids, expression="rotation and not output")
    ('rotation.proper',)
    >>> select(ids, ["rotaton.*"])
    Traceback (most recent call last):
    vq_reference.testing.laws.select.NothingSelected: 'rotaton.*' matches no law: `vq-check laws` lists them
    """
    ids = tuple(ids)
    for pattern in patterns:
        if not any(fnmatchcase(law, pattern) for law in ids):
            raise NothingSelected(f"{pattern!r} matches no law: `vq-check laws` lists them")
    chosen = tuple(law for law in ids if not patterns or any(fnmatchcase(law, p) for p in patterns))
    if not expression:
        return chosen
    try:
        tree = ast.parse(expression, mode="eval").body
    except SyntaxError as error:
        raise NothingSelected(f"{expression!r} is no expression: expected parts of ids with and, or, not") from error
    chosen = tuple(law for law in chosen if _matches(tree, law))
    if not chosen:
        raise NothingSelected(f"{expression!r} selects no law: `vq-check laws` lists them")
    return chosen


def _matches(node: ast.expr, law: str) -> bool:
    match node:
        case ast.BoolOp(ast.And(), values):
            return all(_matches(value, law) for value in values)
        case ast.BoolOp(ast.Or(), values):
            return any(_matches(value, law) for value in values)
        case ast.UnaryOp(ast.Not(), operand):
            return not _matches(operand, law)
        case ast.Name() | ast.Attribute():  # a part of an id, which may have its dot
            return ast.unparse(node).lower() in law
    raise NothingSelected(f"{ast.unparse(node)!r} is no part of an id: expected and, or, not between such")
