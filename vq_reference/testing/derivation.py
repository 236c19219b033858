"""Which bounds a law is made of, read from its code: so that a report derives them, and no law has to say it twice."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

OURS = "vq_reference.testing."
BOUNDS = OURS + "bounds"


@dataclass(frozen=True)
class Bound:
    """A function of a module of bounds, by its name, and how it is derived: its docstring."""

    name: str
    derivation: str


def bounds_of(check: Callable[..., None]) -> list[Bound]:
    """Return the bounds that a law names, in its own function or in a helper of its module.

    Where it names none and has a helper elsewhere hand them over in fields of a result, those of the fields that it
    reads; where there are no such fields, all that the helper names.
    """
    near = list(_reached(check, {check.__module__}))
    found = [bound for function in near for bound in _named(function, function.__code__.co_names)]
    if not found:
        far = [f for f in _reached(check, {check.__module__, *_helpers(check)}) if f not in near]
        read = {name for function in near for name in function.__code__.co_names}
        found = [bound for function in far for bound in _named(function, _filling(function, read))]
        found = found or [bound for function in far for bound in _named(function, function.__code__.co_names)]
    return list(dict.fromkeys(found))


def _helpers(check: Any) -> set[str]:
    modules = (getattr(value, "__module__", None) for value in check.__globals__.values())
    return {name for name in modules if name and name.startswith(OURS) and not name.startswith(BOUNDS)}


def _reached(function: Any, modules: set[str]) -> Iterator[Any]:
    """Yield the function, and those of these modules that it uses, each once."""
    seen, left = [], [function]
    while left:
        current = left.pop()
        seen.append(current)
        yield current
        used = (current.__globals__.get(name) for name in current.__code__.co_names)
        left += [f for f in used if isinstance(f, FunctionType) and f.__module__ in modules and f not in seen + left]


def _named(function: Any, names: Iterable[str]) -> Iterator[Bound]:
    """Yield the bounds among these names that the function uses."""
    modules = [m for m in map(function.__globals__.get, function.__code__.co_names) if isinstance(m, ModuleType)]
    for module in modules:
        if module.__name__.startswith(BOUNDS):
            for name in names:
                bound = getattr(module, name, None)
                if isinstance(bound, FunctionType) and bound.__module__ == module.__name__:
                    said = (inspect.getdoc(bound) or "").partition(">>>")[0]  # an example derives nothing
                    yield Bound(bound.__name__, " ".join(said.split()))


def _filling(function: Any, fields: set[str]) -> list[str]:
    """Return the attributes that stand in the arguments of these names, as `mean_square` in `value_bound=bounds.…`."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except OSError:  # made at run time, as the methods of a dataclass are
        return []
    arguments = [node for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg in fields]
    return [node.attr for argument in arguments for node in ast.walk(argument.value) if isinstance(node, ast.Attribute)]
