"""Mutants: one line of right code, changed on purpose, to show that a law can fail.

A mutant names a module of ours, a piece of its source and what to write instead. It is applied in place: the changed
source is compiled, and every function keeps its identity while its code object is swapped. So whoever imported the
function, under whatever name, runs the changed line, and nothing was copied. Leaving the context puts the code back.

Functions, methods, class and static methods, properties and what is nested in them are reached this way, and so are
the defaults of their arguments. What a module binds once, when it is imported, is not: its constants, its class
attributes, the closures and cached results that it made, and names that only the changed source defines. A mutant that
changes nothing else is refused; change a line that uses the constant instead.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

from vq_reference.testing.laws.verdict import Verdict


class _Body(NamedTuple):
    """What a function does, apart from which function it is."""

    code: CodeType
    defaults: tuple[Any, ...] | None
    keyword_defaults: dict[str, Any] | None


@dataclass(frozen=True)
class Mutant:
    """One deliberate fault.

    name: stable identifier, in the words of whoever would report it.
    module: dotted name of the module of ours that it changes.
    replace: a piece of that module's source that occurs exactly once, of one line or more.
    by: what stands there instead.
    why: what is wrong with it, in one sentence.
    killed_by: id of the law that is the first to see it.
    verdict: how that law ends; CRASHED for a fault that raises.
    """

    name: str
    module: str
    replace: str
    by: str
    why: str
    killed_by: str
    verdict: Verdict = Verdict.BROKEN

    def source(self) -> str:
        """Return the whole changed source.

        Raises ValueError when `replace` does not occur exactly once: the code has moved on and the mutant has not.
        """
        original = inspect.getsource(importlib.import_module(self.module))
        times = original.count(self.replace)
        if times != 1:
            raise ValueError(f"mutant {self.name}: {self.replace!r} occurs {times} times in {self.module}, not once")
        return original.replace(self.replace, self.by)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Run the changed line within this context, in every caller; restore the right one at its end.

        Raises ValueError when `replace` does not occur exactly once, and when the change reaches no function, or
        reaches one that sees more or fewer variables of the function around it than the right one does.

        >>> import shlex
        >>> with Mutant("empty-quote", "shlex", "if not s:", "if s:", "an example", killed_by="").applied():
        ...     shlex.quote("word")
        "''"
        >>> shlex.quote("word")
        'word'
        """
        changes = _changes(self, importlib.import_module(self.module))
        kept = [(function, _body(function)) for function, _ in changes]
        try:
            for function, wrong in changes:
                _give(function, wrong)
            yield
        finally:
            for function, right in kept:
                _give(function, right)


@functools.cache
def _changes(mutant: Mutant, module: ModuleType) -> tuple[tuple[FunctionType, _Body], ...]:
    """Return the functions of the live module that the mutant changes, each with its changed body.

    Both sources are compiled here, so that a mutant of the same module which is on at the moment does not count.
    """
    right = dict(_functions(_executed(inspect.getsource(module), module)))
    wrong = dict(_functions(_executed(mutant.source(), module)))
    changes = []
    for path, function in _functions(module):
        if path in right and path in wrong and _differ(right[path], wrong[path]):
            if function.__code__.co_freevars != wrong[path].__code__.co_freevars:
                raise ValueError(
                    f"mutant {mutant.name} changes which outer variables {path} sees: its code cannot go in"
                )
            changes.append((function, _body(wrong[path])))
    if not changes:
        raise ValueError(f"mutant {mutant.name} changes no function of {mutant.module}")
    return tuple(changes)


def _executed(source: str, module: ModuleType) -> ModuleType:
    """Return a second module made of `source` under the name of `module`, registered nowhere."""
    made = ModuleType(module.__name__)
    made.__dict__.update({k: v for k, v in vars(module).items() if k.startswith("__")})
    exec(compile(source, module.__file__ or module.__name__, "exec"), made.__dict__)
    return made


def _functions(holder: Any, path: str = "") -> Iterator[tuple[str, FunctionType]]:
    """Yield every function that a module itself defines, those of its classes too, by qualified name."""
    home = holder.__name__ if isinstance(holder, ModuleType) else holder.__module__
    for name, value in list(vars(holder).items()):
        if inspect.isclass(value) and value.__module__ == home and value is not holder:
            yield from _functions(value, f"{path}{name}.")
            continue
        parts = ("fget", "fset", "fdel") if isinstance(value, property) else ("__func__", "func", "")
        for part in parts:
            found = getattr(value, part, None) if part else value
            found = inspect.unwrap(found) if callable(found) else found
            if isinstance(found, FunctionType) and found.__module__ == home:
                yield f"{path}{name}:{part}", found


def _body(function: FunctionType) -> _Body:
    return _Body(function.__code__, function.__defaults__, function.__kwdefaults__)


def _give(function: FunctionType, body: _Body) -> None:
    function.__code__ = body.code
    function.__defaults__, function.__kwdefaults__ = body.defaults, body.keyword_defaults


def _differ(right: FunctionType, wrong: FunctionType) -> bool:
    """Say whether two functions do different things: not whether they stand on different lines."""
    defaults = [(f.__defaults__, f.__kwdefaults__) for f in (right, wrong)]
    return _placeless(right.__code__) != _placeless(wrong.__code__) or repr(defaults[0]) != repr(defaults[1])


def _placeless(code: CodeType) -> CodeType:
    """Return the code, and the code nested in it, without line numbers."""
    nested = tuple(_placeless(const) if isinstance(const, CodeType) else const for const in code.co_consts)
    return code.replace(co_firstlineno=1, co_linetable=b"", co_consts=nested)
