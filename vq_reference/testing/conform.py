"""The laws in one test of somebody's own suite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from vq_reference.testing.interface.implementation import Implementation
from vq_reference.testing.laws.registry import laws
from vq_reference.testing.laws.select import select
from vq_reference.testing.reporting.results import Plan, Result
from vq_reference.testing.reporting.terminal import text
from vq_reference.testing.run.expectations import expect, load
from vq_reference.testing.run.judge import judge, versions_of
from vq_reference.testing.run.targets import described, implementation_of


def assert_conforms(
    quantizer: Implementation | Callable[[], Implementation] | str,
    *,
    only: Sequence[str] = (),
    profile: str = "default",
    seed: int | None = None,
    strict: bool = False,
    expectations: Path | str | None = None,
) -> None:
    """Raise AssertionError, with the report of a run as its message, unless the quantizer conforms to the laws.

    quantizer: an `Implementation`, a function that returns one, such as the `adapter` that `vq-check describe` prints,
    a torch module or its class, or the name of a target as on the command line. only: ids of laws or patterns such
    as "rotation.*"; empty for all. profile: quick, default or thorough. seed: None for the same examples each time.
    strict: let a broken should-law fail too. expectations: a TOML file of laws that are expected to break.

    The same laws, ids and verdicts as `vq-check run`, but in this process: a quantizer that hangs or kills the
    interpreter takes the test with it.

    Raises NothingSelected, ExpectationsRefused and TargetUnavailable as the command line reports them.

    >>> assert_conforms("reference.oracle", only=["rotation.proper"], profile="quick")
    """
    catalogue = laws()
    chosen = select(catalogue, only)
    expected = load(Path(expectations), catalogue) if expectations else ()
    tested = implementation_of(quantizer) if isinstance(quantizer, str) else described("quantizer", quantizer, {})
    versions = versions_of(tested)
    ended = [judge(catalogue[law], tested, profile, seed)[0] for law in chosen]
    outcomes = expect(ended, expected, tested.name, versions, profile)
    result = Result(Plan(tested.name, chosen, profile, seed), versions, outcomes)
    if result.account.fails(strict):
        raise AssertionError("\n" + text({tested.name: result}, strict))
