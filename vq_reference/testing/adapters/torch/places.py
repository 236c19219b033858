"""Where something sits in what a forward returns: a position, a key, an attribute, or a path of those."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from torch import Tensor, nn

from vq_reference.testing.interface.errors import DeclarationContradicted

# a step of a path: int for a position, str for a key or an attribute
Path: TypeAlias = "tuple[int | str, ...]"
Place: TypeAlias = "int | str | Path | Callable[[Any], Tensor | None]"


def at(what: str, returned: Any, place: Place) -> Any:
    """Return what sits at `place`; () is the returned value itself. Raises DeclarationContradicted that names `what`.

    >>> at("indices_at", (1, None, {"codes": 5}), (2, "codes"))
    5
    >>> at("indices_at", (1, 2), 2)
    Traceback (most recent call last):
    vq_reference.testing.interface.errors.DeclarationContradicted: indices_at is declared as 2, found: (int, int)
    """
    if callable(place):
        return place(returned)
    found = returned
    for step in (place,) if isinstance(place, (int, str)) else place:
        try:
            found = found[step] if isinstance(step, int) or isinstance(found, Mapping) else getattr(found, step)
        except (LookupError, AttributeError, TypeError):
            raise DeclarationContradicted(what, repr(place), outline(returned)) from None
    return found


def paths(returned: Any, before: Path = ()) -> Iterator[tuple[Path, Tensor]]:
    """Yield every tensor in what a forward returned, with the path that leads to it.

    >>> from torch import zeros
    >>> [path for path, _ in paths((zeros(1), {"loss": zeros(1), "more": [zeros(1)]}))]
    [(0,), (1, 'loss'), (1, 'more', 0)]
    """
    if isinstance(returned, Tensor):
        yield before, returned
        return
    for step, part in _parts(returned):
        yield from paths(part, (*before, step))


def outline(returned: Any) -> str:
    """Return what a forward returned, in words: the shapes and dtypes of its tensors, nested as they are."""
    if isinstance(returned, Tensor):
        return f"{str(returned.dtype).removeprefix('torch.')} {tuple(returned.shape)}"
    parts = _parts(returned)
    if not parts:
        return type(returned).__name__ if returned is not None else "None"
    if isinstance(returned, (tuple, list)) and not hasattr(returned, "_fields"):
        return f"({', '.join(outline(part) for part in returned)})"
    return f"{type(returned).__name__}({', '.join(f'{step}={outline(part)}' for step, part in parts)})"


def _parts(returned: Any) -> list[tuple[int | str, Any]]:
    if isinstance(returned, Mapping):
        return [(key, part) for key, part in returned.items() if isinstance(key, (int, str))]
    if hasattr(returned, "_fields"):
        return [(name, getattr(returned, name)) for name in returned._fields]
    if isinstance(returned, (tuple, list)):
        return list(enumerate(returned))
    if dataclasses.is_dataclass(returned) and not isinstance(returned, type):
        return [(each.name, getattr(returned, each.name)) for each in dataclasses.fields(returned)]
    if isinstance(returned, nn.Module) or not hasattr(returned, "__dict__"):
        return []
    return list(vars(returned).items())
