"""A law: one checked statement, with an id that never changes, a sentence, a source, a level, and what it draws.

The decorator makes a pytest function of it whose only argument is the implementation; the same object can be run
without pytest. Hypothesis's settings are chosen when the law is run, not when its module is imported, so that the
command line, pytest and one's own test suite run it alike.
"""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Callable, Iterable
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, Literal

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings

from vq_reference.testing.interface import subjects
from vq_reference.testing.interface.implementation import Implementation
from vq_reference.testing.interface.precision import underflow_gradually
from vq_reference.testing.laws.assertions import listening
from vq_reference.testing.laws.bound_docs import noting
from vq_reference.testing.laws.hypothesis_patches import draws_of_its_own
from vq_reference.testing.laws.strategies import simvq_cases

Level = Literal["must", "should"]
PROFILES = {"quick": 15, "default": 50, "thorough": 500}


@dataclass(frozen=True)
class Law:
    """One statement, and how it is checked.

    id: stable, `family.name`. level: `must` is the mathematics on the regular range, breaking it fails a run; `should`
    is robustness that good code can reach. source: paper and equation. needs: capabilities without which the law does
    not apply. check: takes the implementation and what `draws` gives.
    """

    id: str
    level: Level
    source: str
    needs: frozenset[str]
    check: Callable[..., None]
    draws: dict[str, hypothesis.strategies.SearchStrategy[Any]]

    @property
    def sentence(self) -> str:
        """The statement, in one sentence that an outsider can act on."""
        return (inspect.getdoc(self.check) or "").split("\n")[0]

    def run(
        self,
        implementation: Implementation,
        profile: str = "default",
        seed: int | None = None,
        on_example: Callable[[], object] = lambda: None,
    ) -> dict[str, float]:
        """Check the law; return the largest margin, measured ÷ bound, of each quantity that it measured.

        profile: one of PROFILES. seed: None for the same examples each time, a number to explore others. on_example:
        called as each example begins. Raises LawBroken or AssertionError with the smallest counterexample; whatever the
        implementation raises passes through.
        """
        margins: dict[str, float] = {}

        def example(**drawn: Any) -> None:
            on_example()
            nearest_miss: dict[str, float] = {}

            def listen(what: str, margin: float) -> None:
                nearest_miss[what] = max(margin, nearest_miss.get(what, 0.0))

            with listening(listen), noting() as used:
                try:
                    self.check(implementation, **drawn)
                except Exception as error:
                    # for the report: hypothesis ends on the smallest
                    error.drawn, error.bounds = drawn, used  # type: ignore[attr-defined]
                    raise
                finally:
                    underflow_gradually()
            for what, margin in nearest_miss.items():
                margins[what] = max(margin, margins.get(what, 0.0))
                if self.draws and margin > 0:  # a law that draws nothing, or is exact, has nothing to climb
                    hypothesis.target(margin, label=what)

        test: Callable[[], None] = example
        if self.draws:
            # not hypothesis's own fixed examples: those change with every edit of the lines above
            fixed = zlib.crc32(self.id.encode())
            test = _configured(given(**self.draws)(example), PROFILES[profile], fixed if seed is None else seed)
        context = copy_context()
        context.run(subjects.precision.set, implementation.precision)
        context.run(subjects.given_sizes.set, implementation.sizes)
        context.run(subjects.offers.set, implementation.offers)
        context.run(simvq_cases.meaning.set, implementation.meaning)
        underflow_gradually()
        with draws_of_its_own():
            context.run(test)
        return margins


LAWS: dict[str, Law] = {}


def _configured(test: Callable[[], None], examples: int, seed: int) -> Callable[[], None]:
    """Apply hypothesis's settings: no clock, no memory of earlier runs, the examples of this seed."""
    configure = settings(
        max_examples=examples,
        database=None,
        deadline=None,
        print_blob=False,
        report_multiple_bugs=False,
        phases=[Phase.explicit, Phase.generate, Phase.target, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    return hypothesis.seed(seed)(configure(test))


def law(
    law_id: str,
    *,
    level: Level,
    source: str,
    needs: Iterable[str] = (),
    **draws: hypothesis.strategies.SearchStrategy[Any],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register the decorated function as a law and return it as a pytest function of `implementation` alone.

    Raises ValueError for an id that is taken, or a function without a sentence.
    """

    def register(check: Callable[..., None]) -> Callable[..., None]:
        made = Law(law_id, level, source, frozenset(needs), check, draws)
        if not made.sentence:
            raise ValueError(f"law {law_id} has no sentence: give {check.__name__} a docstring")
        taken = LAWS.setdefault(law_id, made)
        if taken.check.__qualname__ != check.__qualname__:
            raise ValueError(f"law id {law_id} is taken by {taken.check.__name__}: ids are never reused")

        def test(implementation: Implementation) -> None:
            made.run(implementation)

        test.__name__, test.__qualname__, test.__doc__ = check.__name__, check.__qualname__, check.__doc__
        test.__module__ = check.__module__
        test.law = made  # type: ignore[attr-defined]
        return test

    return register
