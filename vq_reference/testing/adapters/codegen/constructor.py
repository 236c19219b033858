"""A module as the source text that constructs it, for a script that stands alone in somebody's bug report."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from torch import nn

from vq_reference.testing.adapters.codegen.source import NoScript, imported, is_plain


def constructed(make: Callable[[], nn.Module]) -> list[str]:
    """Return the lines that construct, as `layer`, what `make` does: its class, with the arguments that it was given.

    Modules among the arguments are constructed in their place. Raises NoScript for others that are no plain values.
    """
    classes = {type(part) for part in make().modules()}
    heard: list[Constructed] = []
    with contextlib.ExitStack() as stack:
        for each in classes:
            stack.enter_context(_listening(each, heard))
        made = make()
    lines: list[str] = []
    expression = _expression("the module", made, heard, lines)
    return [*lines, f"layer = {expression}"]


class Constructed(NamedTuple):
    """A module as it is constructed, and what its constructor is given, by name."""

    module: nn.Module
    given: dict[str, Any]


@contextlib.contextmanager
def _listening(made_class: type[nn.Module], heard: list[Constructed]) -> Iterator[None]:
    """Note what the constructor of a class is given."""
    constructor = made_class.__init__

    @functools.wraps(constructor)
    def listening(self: Any, *args: Any, **kwargs: Any) -> None:
        if type(self) is made_class:  # and no class that is made of it
            heard.append(Constructed(self, _given(constructor, self, args, kwargs)))
        constructor(self, *args, **kwargs)

    own = "__init__" in vars(made_class)
    made_class.__init__ = listening  # type: ignore[method-assign]
    try:
        yield
    finally:
        if own:
            made_class.__init__ = constructor  # type: ignore[method-assign]
        else:
            del made_class.__init__


def _given(constructor: Any, self: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    bound = inspect.signature(constructor).bind(self, *args, **kwargs)
    given: dict[str, Any] = {}
    for name, parameter in list(bound.signature.parameters.items())[1:]:
        if name in bound.arguments:
            value = bound.arguments[name]
            given.update(value if parameter.kind is parameter.VAR_KEYWORD else {name: value})
            if parameter.kind is parameter.VAR_POSITIONAL:
                given[name] = Unnamed()
    return given


class Unnamed:
    """Arguments without a name, in place of what they are: no script can hand them in by theirs."""


def _expression(what: str, value: Any, heard: list[Constructed], lines: list[str]) -> str:
    """Return source text for a value, called `what` where there is none, and add to `lines` what it has to import."""
    if is_plain(value):
        return repr(value)
    if type(value) in (list, tuple):
        return f"[{', '.join(_expression(what, each, heard, lines) for each in value)}]"
    found = next((each for each in heard if each.module is value), None)
    if found is None:
        raise NoScript(f"{what} is a {type(value).__name__}, which is no plain value")
    lines += imported(type(value))
    made = type(value).__name__
    given = (f"{name}={_expression(f'{made}.{name}', each, heard, lines)}" for name, each in found.given.items())
    return f"{made}({', '.join(given)})"
