"""Classes, functions and numbers as source text, for a script that stands alone in somebody's bug report."""

from __future__ import annotations

import ast
import copy
import dis
import functools
import importlib
import importlib.metadata
import inspect
import math
import sys
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vq_reference.arguments import Array
from vq_reference.testing.adapters.torch.plain import unsaved

OURS = "vq_reference."
# what a script may use by these names, and how it gets them; torch is imported by every script
KNOWN: dict[str, str] = {
    "torch": "",
    "nn": "from torch import nn",
    "Tensor": "from torch import Tensor",
    "Any": "from typing import Any",
    "cast": "from typing import cast",
    "Given": "from collections import namedtuple\nGiven = namedtuple('Given', 'output indices losses')",
}


class NoScript(Exception):
    """What cannot be shown outside of the suite. The message says why."""


def exactly(values: Array) -> str:
    """Return source text for these numbers, every bit of them: nested lists of hexadecimal floats.

    >>> import numpy as np
    >>> exactly(np.array([[0.1, 2.0]]))
    "exactly([['0x1.999999999999ap-4', '0x1.0000000000000p+1']])"
    """
    return f"exactly({_hexadecimal(values.tolist())!r})"


def tensor(values: Tensor) -> str:
    """Return source text for a tensor of any dtype; its own dtype is that of what it is copied into."""
    held = values.detach().cpu()
    return exactly(held.double().numpy()) if held.dtype.is_floating_point else f"torch.tensor({held.tolist()!r})"


def _hexadecimal(values: object) -> object:
    return [_hexadecimal(v) for v in values] if isinstance(values, list) else float(values).hex()  # type: ignore[arg-type]


def imported(thing: Any) -> list[str]:
    """Return the lines that import a class or function by its name, from the package itself where that has it too.

    A module that belongs to no distribution is its author's own, and found by its folder. Raises NoScript for one that
    has no name of a module, as those made inside of a function.
    """
    name, module = thing.__qualname__, thing.__module__
    if "." in name or getattr(sys.modules.get(module), name, None) is not thing:
        raise NoScript(f"{name} is no name of the module {module}, which a script could import")
    package = sys.modules.get(module.partition(".")[0])
    source = module.partition(".")[0] if getattr(package, name, None) is thing else module
    return [*_found(source), f"from {source} import {name}"]


def named(value: Any) -> list[str]:
    """Return the lines that import an object that is a global of its author's module, and then call it `found`.

    Raises NoScript where no module has it.
    """
    for module in list(sys.modules.values()):
        for name, each in list(vars(module).items()) if isinstance(module, types.ModuleType) else ():
            if each is value and not module.__name__.startswith((OURS, "__main__")):
                return [*_found(module.__name__), f"from {module.__name__} import {name} as found"]
    raise NoScript("the instance is no global of a module, which a script could import")


def _found(module: str) -> list[str]:
    """Return the line that puts a module's folder on the path, where it belongs to no distribution."""
    if module.partition(".")[0] in _installed():
        return []
    file = getattr(sys.modules[module], "__file__", None)
    if file is None:
        raise NoScript(f"the module {module} has no file")
    depth = module.count(".") + (Path(file).name == "__init__.py")
    return [f"sys.path.insert(0, {str(Path(file).resolve().parents[depth])!r})"]


@functools.lru_cache(maxsize=1)
def _installed() -> frozenset[str]:
    return frozenset(importlib.metadata.packages_distributions()) | frozenset(sys.stdlib_module_names)


def is_plain(value: Any) -> bool:
    """Say whether a value is written as it is read: numbers, text, None, and lists and dicts of those."""
    if isinstance(value, dict):
        return all(map(is_plain, [*value, *value.values()]))
    if type(value) in (list, tuple):
        return all(map(is_plain, value))
    return type(value) in (bool, int, float, str, type(None))


def function(given: Callable[..., Any]) -> tuple[list[str], str]:
    """Return the lines that define or import a function, and the expression that names it.

    A function of somebody's own module is imported. A lambda, and a function of ours, is written out; one that has some
    of its arguments already is handed them. Raises NoScript for one that needs values of the function around it.
    """
    if isinstance(given, functools.partial):
        if given.args:
            raise NoScript(f"{given.func.__name__} is given arguments without their names")
        lines, name = function(given.func)
        told = {key: _value(key, value) for key, value in given.keywords.items()}
        lines = ["import functools", *lines, *(line for more, _ in told.values() for line in more)]
        return lines, f"functools.partial({name}, {', '.join(f'{key}={text}' for key, (_, text) in told.items())})"
    name = getattr(given, "__name__", "")
    if not isinstance(given, types.FunctionType):
        raise NoScript(f"{given!r} is no plain function")
    if name != "<lambda>" and not given.__module__.startswith(OURS):
        return imported(given), name
    if given.__code__.co_freevars:
        raise NoScript(f"{name} needs {', '.join(given.__code__.co_freevars)} of the function around it")
    node = _node(given)
    lines = _globals(given)
    if isinstance(node, ast.Lambda):
        return lines, f"({ast.unparse(node)})"
    for each in ast.walk(node):
        if isinstance(each, ast.arg):
            each.annotation = None
        if isinstance(each, ast.FunctionDef):
            each.returns, each.decorator_list = None, []
    node = _Unannotated().visit(node)
    return [*lines, ast.unparse(node)], name


def _value(name: str, value: Any) -> tuple[list[str], str]:
    """Return the lines that an argument needs, and the expression that it is: plain, a function, or a list of both."""
    if is_plain(value):
        return [], repr(value)
    if isinstance(value, list):
        items = [_value(name, each) for each in value]
        return [line for lines, _ in items for line in lines], f"[{', '.join(text for _, text in items)}]"
    if callable(value):
        return function(value)
    raise NoScript(f"{name} is a {type(value).__name__}, which is no plain value")


class _Unannotated(ast.NodeTransformer):
    """Takes the types off assignments."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        assert node.value is not None
        return ast.copy_location(ast.Assign([node.target], node.value), node)


def _globals(given: types.FunctionType) -> list[str]:
    lines = []
    for name in dict.fromkeys(_names(given.__code__)):
        if name in KNOWN:
            lines += [KNOWN[name]] if KNOWN[name] else []
        elif name in given.__globals__:
            value = given.__globals__[name]
            if isinstance(value, types.ModuleType):
                lines += [f"import {value.__name__}" + ("" if name == value.__name__ else f" as {name}")]
            elif isinstance(value, types.FunctionType) and value.__module__ == given.__module__:
                lines += function(value)[0]
            elif getattr(value, "__module__", OURS).startswith(OURS):
                raise NoScript(f"{given.__name__} needs {name}, which a script cannot import")
            else:
                lines += imported(value)
    return lines


def _names(code: types.CodeType) -> list[str]:
    """Return the globals that code uses, and the code nested in it."""
    names = [each.argval for each in dis.get_instructions(code) if each.opname == "LOAD_GLOBAL"]
    nested = (each for each in code.co_consts if isinstance(each, types.CodeType))
    return [*names, *(name for each in nested for name in _names(each))]


def _node(given: types.FunctionType) -> ast.Lambda | ast.FunctionDef:
    """Return the syntax of a function: among those on its line, the one that compiles to the same."""
    try:
        source = inspect.getsource(sys.modules[given.__module__])
    except (OSError, KeyError) as error:
        raise NoScript(f"the source of {given.__name__} is not at hand") from error
    nodes = [node for node in _functions(source) if _starts(node, given)]
    if len(nodes) > 1:
        nodes = [n for n in nodes if isinstance(n, ast.Lambda) and _alike(n, given.__code__)]
    alike = {ast.unparse(n): n for n in nodes}
    if len(alike) != 1:
        raise NoScript(f"the source of {given.__name__} cannot be told from others on its line")
    return copy.deepcopy(next(iter(alike.values())))


@functools.lru_cache(maxsize=16)
def _functions(source: str) -> tuple[ast.Lambda | ast.FunctionDef, ...]:
    """Return the functions of a module's source, nested ones too: each script asks for several of few modules."""
    return tuple(node for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.Lambda, ast.FunctionDef)))


def _starts(node: ast.Lambda | ast.FunctionDef, given: types.FunctionType) -> bool:
    is_lambda = given.__name__ == "<lambda>"
    return isinstance(node, ast.Lambda) == is_lambda and node.lineno == given.__code__.co_firstlineno


def _alike(node: ast.Lambda, code: types.CodeType) -> bool:
    whole = compile(ast.Expression(node), "<lambda>", "eval")
    made = next(each for each in whole.co_consts if isinstance(each, types.CodeType))
    return (made.co_code, made.co_consts, made.co_names) == (code.co_code, code.co_consts, code.co_names)


def lines_of(*parts: Iterable[str]) -> str:
    """Return the lines of all parts, with each import once."""
    lines: list[str] = []
    for line in (line for part in parts for line in part):
        if not (line.startswith(("import ", "from ", "sys.path")) and line in lines):
            lines.append(line)
    return "\n".join(lines)


def empty_caches(module: nn.Module, constructed: nn.Module | None) -> set[str]:
    """Return the names of buffers that are not saved, and that the constructor leaves empty: they are made again."""
    return set() if constructed is None else unsaved(module) - {name for name, _ in constructed.named_buffers()}


def state(module: nn.Module, left_out: set[str], constructed: nn.Module | None = None) -> list[str]:
    """Return the lines that give `layer` the parameters and buffers of this module, every bit of them.

    But for those that are left out, and those that the constructor gives it anyway, where it is told what that made: a
    release may have mended them.
    """
    made = {} if constructed is None else {**dict(constructed.named_parameters()), **dict(constructed.named_buffers())}
    held = [each for each in [*module.named_parameters(), *module.named_buffers()] if each[0] not in left_out]
    return [
        "state = {",
        *(
            f"    {name!r}: {tensor(each)},"
            for name, each in held
            if name not in made or not torch.equal(made[name], each.to(made[name].dtype))
        ),
        "}",
        "named = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}",
        "with torch.no_grad():",
        "    for name, values in state.items():",
        "        named[name].copy_(values)",
    ]


def converted(module: nn.Module, constructed: nn.Module | None, dtype: torch.dtype) -> list[str]:
    """Return the line that converts `layer`; none where the constructor makes it of the dtypes that this module has.

    One that has `dtype` alone is converted all the same: nothing happens, and the script shows what it computes in.
    """
    held, made = (
        None if each is None else [tensor.dtype for tensor in each.state_dict().values()]
        for each in (module, constructed)
    )
    wide = any(each.is_floating_point and each != dtype for each in held or ())
    return [] if wide and held == made else [f"layer = layer.to({dtype})"]


def changed(module: nn.Module, change: Callable[[Any], object] | None) -> list[str]:
    """Return the lines that make of `layer` what `change` makes of this module: its plain attributes and its modes."""
    if change is None:
        return []
    before = {path: dict(vars(part)) for path, part in module.named_modules()}
    with torch.no_grad():
        change(module)
    return [
        _assigned(path, name, value)
        for path, part in module.named_modules()
        for name, value in vars(part).items()
        if is_plain(value) and (name not in before[path] or before[path][name] is not value)
    ]


def differing(module: nn.Module, constructed: nn.Module | None) -> list[str]:
    """Return the lines that give `layer` the plain attributes that this module has and its constructor does not give.

    Such as a decay that was set later, or a weight of the loss that an adapter hands on.
    """
    if constructed is None:
        return []
    made = {path: vars(part) for path, part in constructed.named_modules()}
    return [
        _assigned(path, name, value)
        for path, part in module.named_modules()
        for name, value in vars(part).items()
        if is_plain(value) and path in made and repr(made[path].get(name, made)) != repr(value)
    ]


def _assigned(path: str, name: str, value: Any) -> str:
    text = f"float('{value}')" if isinstance(value, float) and not math.isfinite(value) else repr(value)
    return f"layer.get_submodule({path!r}).{name} = {text}" if path else f"layer.{name} = {text}"
