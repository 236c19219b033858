"""What the laws ask of hypothesis that it has no setting for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from hypothesis.internal.cache import LRUCache
from hypothesis.internal.conjecture import providers
from hypothesis.internal.conjecture.data import Overrun
from hypothesis.internal.conjecture.engine import ConjectureRunner
from hypothesis.internal.constants_ast import Constants

_try = ConjectureRunner.cached_test_function


@contextmanager
def draws_of_its_own() -> Iterator[None]:
    """Draw the same values whatever else is imported, and end in good time."""
    with (
        # Hypothesis now and then draws a number that it has read in the source of the modules loaded by then, if they
        # are not installed in site-packages, and keeps those that fit a range. So what a seed draws would depend on a
        # user's program, and on which tests ran before.
        patch.multiple(providers, _get_local_constants=Constants, CONSTANTS_CACHE=LRUCache(1024)),
        patch.object(ConjectureRunner, "cached_test_function", _too_short_once),
    ):
        yield


def _too_short_once(self: ConjectureRunner, choices: Sequence[Any], **how: Any) -> object:
    """Try choices, but not again those that were too few for an example.

    Hypothesis remembers examples and forgets those. It climbs towards a target for as long as there is something that
    it has not tried, so it tried them, at the top of a hill, a hundred times for each example that it was to draw:
    minutes of nothing, in one run of some hundred.
    """
    if how or not all(isinstance(each, bool | int | float | str | bytes) for each in choices):
        # some of them are still to be drawn
        return _try(self, choices, **how)
    forgotten: set[object] = self.__dict__.setdefault("too_short", set())
    key = self._cache_key(choices)
    if key in forgotten:
        return Overrun
    tried = _try(self, choices)
    if tried is Overrun:
        forgotten.add(key)
    return tried
