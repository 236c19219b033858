"""Mutants: one line of right code, changed on purpose, to show that a law can fail.

A mutant names a module of ours, a piece of its source and what to write instead. It is applied in place: the changed
source is compiled, and every function keeps its identity while its code object is swapped. So whoever imported the
function, under whatever name, runs the changed line, and nothing was copied. Leaving the context puts the code back.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType


@dataclass(frozen=True)
class Mutant:
    """One deliberate fault.

    name: stable identifier, in the words of whoever would report it.
    module: dotted name of the module of ours that it changes.
    replace: a piece of that module's source that occurs exactly once (leading white space does not matter).
    by: what stands there instead.
    why: what is wrong with it, in one sentence.
    killed_by: id of the law that is the first to see it.
    """

    name: str
    module: str
    replace: str
    by: str
    why: str
    killed_by: str

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

        >>> import shlex
        >>> with Mutant("empty-quote", "shlex", "if not s:", "if s:", "an example", killed_by="").applied():
        ...     shlex.quote("word")
        "''"
        >>> shlex.quote("word")
        'word'
        """
        module = importlib.import_module(self.module)
        changed = ModuleType(module.__name__)
        changed.__dict__.update({k: v for k, v in vars(module).items() if k.startswith("__")})
        exec(compile(self.source(), module.__file__ or self.module, "exec"), changed.__dict__)
        right = dict(_functions(module))
        wrong = dict(_functions(changed))
        kept: list[tuple[FunctionType, CodeType, object, object]] = []
        try:
            for path, function in right.items():
                other = wrong.get(path)
                if other is not None and _differ(function, other):
                    kept.append((function, function.__code__, function.__defaults__, function.__kwdefaults__))
                    function.__code__ = other.__code__
                    function.__defaults__, function.__kwdefaults__ = other.__defaults__, other.__kwdefaults__
            if not kept:
                raise ValueError(f"mutant {self.name} changes no function of {self.module}")
            yield
        finally:
            for function, code, defaults, keywords in kept:
                function.__code__ = code
                function.__defaults__, function.__kwdefaults__ = defaults, keywords  # type: ignore[assignment]


def _functions(module: ModuleType) -> Iterator[tuple[str, FunctionType]]:
    """Yield every function that the module itself defines, its methods and properties too, by qualified name."""
    for name, value in vars(module).items():
        if getattr(value, "__module__", None) != module.__name__:
            continue
        members = vars(value).items() if inspect.isclass(value) else [("", value)]
        for member, raw in members:
            found = raw.fget if isinstance(raw, property) else getattr(raw, "__func__", raw)
            found = inspect.unwrap(found) if callable(found) else found
            if isinstance(found, FunctionType):
                yield f"{name}.{member}", found


def _differ(right: FunctionType, wrong: FunctionType) -> bool:
    same_code = (
        right.__code__.co_code == wrong.__code__.co_code and right.__code__.co_consts == wrong.__code__.co_consts
    )
    same_names = right.__code__.co_names == wrong.__code__.co_names
    return not (same_code and same_names and right.__defaults__ == wrong.__defaults__)
