"""Which bounds were used, as they were asked for: so that a report derives them, and no law has to name them."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FunctionType
from typing import Any

# derivation → name, in the order of their first use: two modules may have a bound of one name
Used = dict[str, str]
# None where nobody asks
_used: ContextVar[Used | None] = ContextVar("used bounds", default=None)


@contextmanager
def noting() -> Iterator[Used]:
    """Note the bounds that are used in this context: the name of each, and its docstring, which derives it.

    What a bound is made of is part of its derivation, and not noted beside it.
    """
    used = Used()
    token = _used.set(used)
    try:
        yield used
    finally:
        _used.reset(token)


def note_calls(module: str) -> None:
    """Let each public function of a module of bounds note its use; called once, at the module's end."""
    for name, value in list(vars(sys.modules[module]).items()):
        if isinstance(value, FunctionType) and value.__module__ == module and not name.startswith("_"):
            setattr(sys.modules[module], name, _noting(value))


def _noting(bound: Callable[..., Any]) -> Callable[..., Any]:
    said = (inspect.getdoc(bound) or "").partition(">>>")[0]  # an example derives nothing
    derivation = " ".join(said.split())

    @functools.wraps(bound)
    def noted(*given: Any, **named: Any) -> Any:
        used = _used.get()
        if used is None:
            return bound(*given, **named)
        used.setdefault(derivation, bound.__name__)
        token = _used.set(None)
        try:
            return bound(*given, **named)
        finally:
            _used.reset(token)

    return noted
