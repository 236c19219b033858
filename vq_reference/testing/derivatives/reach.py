"""Which modules a callable computes with: those that it is, holds, closes over, or names as globals.

Looked into are functions, methods and partials, containers, and objects such as somebody's own Trainer. An object in a
container or in another object is not: from there a way leads to everything.
"""

from __future__ import annotations

import dis
import functools
import inspect
from collections import deque
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

_CONTAINERS = (list, tuple, dict, set, frozenset)


def modules_of(function: Callable[..., Any]) -> dict[str, nn.Module]:
    """Return the modules by the name that the program has for them; ``""`` for the callable itself.

    Functions that it calls are looked into as well, but for those of torch. Raises TypeError for a scripted one, whose
    stops only TorchScript sees.

    >>> layer = nn.Linear(2, 2)
    >>> list(modules_of(layer)), list(modules_of(lambda x: layer(x)))
    ([''], ['layer'])
    """
    found: dict[str, nn.Module] = {}
    seen: set[int] = set()
    pending: deque[tuple[str, Any]] = deque([("", function)])
    while pending:
        name, value = pending.popleft()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, torch.jit.ScriptFunction):
            raise TypeError(f"{name or value.name} is a ScriptFunction: give the function that it was made from")
        if isinstance(value, nn.Module):
            if not any(value is known for known in found.values()):
                found[name if name not in found else f"{name}_{len(found)}"] = value
        elif value is function or _is_program(value) or isinstance(value, _CONTAINERS) or _is_object(value):
            pending += _held(name, value)
    return found


def _is_program(value: Any) -> bool:
    """Whether to look into a value: a function, method or partial that is not torch's."""
    if isinstance(value, functools.partial):
        return True
    if not (inspect.isfunction(value) or inspect.ismethod(value)):
        return False
    # not its __module__, which functools.wraps takes from another
    return not str(getattr(value, "__globals__", {}).get("__name__", "")).startswith("torch.")


def _is_object(value: Any) -> bool:
    """Whether a value is an object with attributes, and neither torch's nor a class or a module of Python's."""
    if isinstance(value, (type, ModuleType, FunctionType, Tensor, nn.Module)) or not hasattr(value, "__dict__"):
        return False
    return type(value).__module__.split(".")[0] != "torch"


def _held(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, functools.partial):
        yield "", value.func
        yield from ((str(k), argument) for k, argument in enumerate(value.args))
        yield from value.keywords.items()
    elif inspect.ismethod(value):
        yield "", value.__self__
        yield "", value.__func__
    elif isinstance(value, FunctionType):
        yield from _named_by(value)
    else:
        if isinstance(value, _CONTAINERS):
            items = value.items() if isinstance(value, dict) else enumerate(value)
        else:
            items = getattr(value, "__dict__", {}).items()
            if callable(value):
                yield "", type(value).__call__
        of = f"{name}." if name else ""
        yield from ((f"{of}{key}", item) for key, item in items if not _is_object(item) or _is_program(item))


def _named_by(function: FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    for k, default in enumerate((*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())):
        yield f"default{k}", default
    for name in sorted(_global_names(function.__code__)):
        if name in function.__globals__:
            yield name, function.__globals__[name]


def _global_names(code: CodeType) -> set[str]:
    names = {str(i.argval) for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return names.union(*(_global_names(one) for one in inner))
