"""Which of the values of a replay a law compared: by the name that it gives them, and by what they were."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import numpy as np

from vq_reference.arguments import Array
from vq_reference.testing.laws.assertions import LawBroken
from vq_reference.testing.reporting.repro.replay import Replay, Value

# what a law says that it measured → the kind of value that this is; a name that stands here nowhere is its own kind
KINDS = {
    r"output\b.*": "output",
    r"(index|indices)\b.*": "indices",
    r"(ℓ|loss of layer|losses)\b.*": "losses",
    r"gradient (at padding|of loss \d+ at x)": "gradient at x",
    r"(counts\b.*|N)": "counts",
    r"(sums\b.*|m)": "sums",
    r"(codes\b.*|m/Ñ|unused codes|the .*code)": "codes",
}
JACOBIAN = "∂output/∂x"
FINITE = "finite "
DIFFER = r"whether the last (\d+) codes differ"
REPLACED = "code in the dead one's place"
# what has no distance → how it is read from the last reply
OF_A_REPLY = {
    "dtype of the output": "{}['dtypes'][0]",
    "dtype of the indices": "{}['dtypes'][1]",
    "dtype of the loss": "{}['dtypes'][2]",
    "shape of output, indices and losses": "{}['shapes']",
    "number of losses": "len({}['losses'])",
    "number of dropped layers": "int(({}['indices'] < 0).all(axis=0).sum())",
}

SHAPE_DECODED = "shape of what is decoded"

Selection = tuple[str, Callable[[Array], Array]]


def kind_of(what: str) -> str:
    """Return the kind of value that a law's name for it stands for.

    >>> kind_of("output of padding"), kind_of("gradient at x")
    ('output', 'gradient at x')
    """
    return next((kind for pattern, kind in KINDS.items() if re.fullmatch(pattern, what)), what)


def form(replay: Replay, what: str) -> str:
    """Return the expression for what has no distance: of the last reply, or of what was decoded last; "" for no such.

    what: as the law calls it.
    """
    if what == SHAPE_DECODED:
        return next((f"{value.text}.shape" for value in reversed(replay.values) if value.kind == "decoded"), "")
    return OF_A_REPLY[what].format(replay.replies[-1]) if what in OF_A_REPLY and replay.replies else ""


def compared(replay: Replay, error: LawBroken) -> Iterator[tuple[str, str]]:
    """Yield expressions for what the law measured, and for what it compared that with: "" where no step gave it.

    The likeliest first: the value that came last, and beside it another of its kind that was what was expected.
    """
    if error.what == JACOBIAN:
        rows = [value.text for value in replay.values if value.kind == "gradient at x"][-error.actual.shape[1] :]
        yield f"np.stack([{', '.join(rows)}], axis=1)", ""
        return
    if error.what.startswith(FINITE):
        kind = kind_of(error.what.removeprefix(FINITE))
        for value in reversed(replay.values):
            if value.kind == kind and value.array is not None and value.array.shape == error.actual.shape:
                yield f"np.isfinite({value.text})", ""
        return
    if differ := re.fullmatch(DIFFER, error.what):
        codes = next(value.text for value in reversed(replay.values) if value.kind == "codes")
        yield f"np.asarray(len(np.unique({codes}[0, -{differ[1]}:], axis=0)) > 1)", ""
        return
    if error.what == REPLACED:  # drawn at random: by any of the tokens, when it first is
        reads = ", ".join(value.text for value in replay.values if value.kind == "codes")
        code = f"replaced([{reads}], {replay.far / 2})"
        yield code, f"closest({replay.tokens}, {code})"
        return
    alike = [value for value in reversed(replay.values) if value.kind == kind_of(error.what)]
    for value in alike:
        for text, select in selections(value.array, error.actual):
            for other in alike:
                if other is not value and _selects(select, other, value, error.expected):
                    yield value.text + text, other.text + text
            yield value.text + text, ""


def _selects(select: Callable[[Array], Array], other: Value, value: Value, expected: Array) -> bool:
    if other.array is None or value.array is None or other.array.shape != value.array.shape:
        return False
    return np.array_equal(select(other.array), expected, equal_nan=True)


def selections(whole: Array | None, part: Array) -> Iterator[Selection]:
    """Yield how `part` may be cut from `whole`, as source text and as a function: laws leave out what rounding decides.

    All of it, one of its tables, some of its rows, or some of its columns.
    """
    if whole is None or (whole.size == part.size and np.array_equal(whole.ravel(), part.ravel(), equal_nan=True)):
        yield f".reshape({part.shape})", lambda given: given.reshape(part.shape)
        return
    if whole.ndim and whole.shape[1:] == part.shape:
        for i in range(len(whole)):
            if np.array_equal(whole[i], part, equal_nan=True):
                yield f"[{i}]", lambda given, i=i: given[i]  # type: ignore[misc]
    width = part.shape[-1] if part.ndim else 1
    if whole.ndim and (whole.shape[-1] == width or not part.ndim):
        mine, its = part.reshape(-1, width), whole.reshape(-1, width)
        for rows in (_in_order(its, mine), _backwards(its, mine)):
            if rows is not None:
                text = f".reshape(-1, {width})[{rows}].reshape({part.shape})"
                yield text, lambda given, rows=rows: given.reshape(-1, width)[rows].reshape(part.shape)  # type: ignore[misc]
    if whole.ndim == part.ndim == 2 and len(whole) == len(part):
        for columns in (_in_order(whole.T, part.T), _backwards(whole.T, part.T)):
            if columns is not None:
                yield f"[:, {columns}]", lambda given, columns=columns: given[:, columns]  # type: ignore[misc]


def _in_order(whole: Array, part: Array) -> list[int] | None:
    """Return rows of `whole`, in their order, that `part` is made of; None where there are none."""
    found, begin = [], 0
    for row in part:
        i = next((i for i in range(begin, len(whole)) if np.array_equal(whole[i], row, equal_nan=True)), None)
        if i is None:
            return None
        found.append(i)
        begin = i + 1
    return found


def _backwards(whole: Array, part: Array) -> list[int] | None:
    """Return the last such rows: of rows that are equal, the law may have meant another one than the first."""
    found = _in_order(whole[::-1], part[::-1])
    return None if found is None else [len(whole) - 1 - i for i in reversed(found)]
