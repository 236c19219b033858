"""What the laws ask of hypothesis that it has no setting for: all that is not its public interface is named here.

Where a release of hypothesis lacks what is named, its own way is taken: a seed then draws what other modules bring
along, or a climb takes longer, and verdicts stay what they are.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

# modules of hypothesis.internal, and what is taken from them
CONSTANTS = ("constants_ast", "Constants")
PROVIDERS = ("conjecture.providers", "_get_local_constants", "CONSTANTS_CACHE")
RUNNER = ("conjecture.engine", "ConjectureRunner", "Overrun")
METHODS = ("cached_test_function", "_cache_key")


@contextmanager
def draws_of_its_own() -> Iterator[None]:
    """Draw the same values whatever else is imported, and end in good time; each as far as hypothesis lets us."""
    with ExitStack() as patches:
        constants, providers, runner = _found(*CONSTANTS), _found(*PROVIDERS), _found(*RUNNER)
        if constants and providers:
            # Hypothesis now and then draws a number that it has read in the source of the modules loaded by then, if
            # they are not installed in site-packages, and keeps those that fit a range. So what a seed draws would
            # depend on a user's program, and on which tests ran before.
            module, _, cache = providers
            fresh = {PROVIDERS[1]: constants[1], PROVIDERS[2]: type(cache)(1024)}
            patches.enter_context(patch.multiple(module, **fresh))
        if runner and all(hasattr(runner[1], name) for name in METHODS):
            _, its_class, too_short = runner
            run, key_of = (getattr(its_class, name) for name in METHODS)
            once = _too_short_once(run, key_of, too_short)
            patches.enter_context(patch.object(its_class, METHODS[0], once))
        yield


def _found(module: str, *names: str) -> tuple[Any, ...]:
    """Return a module of hypothesis.internal and what it has by these names; nothing where one of them is not there."""
    try:
        found = importlib.import_module(f"hypothesis.internal.{module}")
    except ImportError:
        return ()
    return (found, *(getattr(found, name) for name in names)) if all(hasattr(found, name) for name in names) else ()


def _too_short_once(run: Callable[..., Any], key_of: Callable[..., Any], too_short: object) -> Callable[..., Any]:
    """Return what tries choices as `run` does, but not again those that were too few for an example.

    Hypothesis remembers examples and forgets those. It climbs towards a target for as long as there is something that
    it has not tried, so it tried them, at the top of a hill, a hundred times for each example that it was to draw:
    minutes of nothing, in one run of some hundred.
    """

    def once(self: Any, choices: Sequence[Any], **how: Any) -> Any:
        if how or not all(isinstance(each, bool | int | float | str | bytes) for each in choices):
            # some of them are still to be drawn
            return run(self, choices, **how)
        forgotten: set[object] = self.__dict__.setdefault("too_short", set())
        key = key_of(self, choices)
        if key in forgotten:
            return too_short
        tried = run(self, choices)
        if tried is too_short:
            forgotten.add(key)
        return tried

    return once
