"""The pytest plugin: `--vq-target` says what the laws are run on, and every law reports what became of it.

It is loaded in every environment that has vq-reference installed, and does nothing where no law is collected.
"""

from __future__ import annotations

import json
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vq_reference.testing.adapters.implementation import Implementation
from vq_reference.testing.law import PROFILES, Law
from vq_reference.testing.targets import READY, TargetUnavailable, implementation_of
from vq_reference.testing.verdict import Outcome, Verdict

DEFAULT_TARGETS = ("reference.oracle", "reference.SimVQ")
FIXTURE = "implementation"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, all of them prefixed with --vq-."""
    group = parser.getgroup("vq-reference", "laws of vector quantizers")
    group.addoption(
        "--vq-target",
        action="append",
        metavar="TARGET",
        help=f"what the laws are run on, once for each: {', '.join(READY)} (default: the first two)",
    )
    group.addoption("--vq-profile", choices=sorted(PROFILES), default="default", help="examples drawn for each law")
    group.addoption("--vq-seed", type=int, metavar="N", help="explore other examples than the fixed ones")
    group.addoption("--vq-law", action="append", metavar="ID", help="run this law, and those named by further --vq-law")
    group.addoption("--vq-strict", action="store_true", help="let a broken should-law fail too")
    group.addoption("--vq-events", metavar="FILE", help="append a JSON line for each law started and ended")


def law_of(item: pytest.Item) -> Law | None:
    """Return the law that a test item is, or None for any other test."""
    return getattr(getattr(item, "function", None), "law", None)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each law once for each target."""
    if FIXTURE in metafunc.fixturenames and hasattr(metafunc.function, "law"):
        targets = metafunc.config.getoption("--vq-target") or DEFAULT_TARGETS
        metafunc.parametrize(FIXTURE, targets, indirect=True, scope="session")


@pytest.fixture(scope="session")
def implementation(request: pytest.FixtureRequest) -> Implementation:
    """Return the implementation under test, from `--vq-target`."""
    try:
        return implementation_of(request.param)
    except TargetUnavailable as error:
        raise pytest.UsageError(str(error)) from error


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the laws that `--vq-law` names, and nothing else."""
    wanted = set(config.getoption("--vq-law") or ())
    if not wanted:
        return
    kept = [item for item in items if (law := law_of(item)) and law.id in wanted]
    unknown = wanted - {law.id for item in kept if (law := law_of(item))}
    if unknown:
        raise pytest.UsageError(f"--vq-law {', '.join(sorted(unknown))}: no such law is collected")
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a law with the options of this run, and turn its outcome into pytest's."""
    law = law_of(pyfuncitem)
    if law is None:
        return None
    config = pyfuncitem.config
    _write(config, event="started", law=law.id)
    tested = pyfuncitem.funcargs[FIXTURE]
    assert isinstance(tested, Implementation)
    outcome, error = judge(law, tested, config.getoption("--vq-profile"), config.getoption("--vq-seed"))
    _write(config, event="ended", law=law.id, outcome=outcome.as_json())
    if outcome.verdict is Verdict.NOT_APPLICABLE:
        pytest.skip(f"not applicable: {outcome.message}")
    if error is not None:
        if not outcome.fails(config.getoption("--vq-strict")):
            pytest.xfail(f"should-law {outcome.verdict.value}: {outcome.message}")
        raise error
    return True


def judge(law: Law, tested: Implementation, profile: str, seed: int | None) -> tuple[Outcome, Exception | None]:
    """Run one law on one implementation and return what became of it, with the exception where it did not hold."""
    missing = tested.lacks(law.needs)
    if missing:
        message = f"{tested.name} does not declare {', '.join(missing)}"
        return Outcome(law.id, law.level, law.sentence, Verdict.NOT_APPLICABLE, message), None
    begun = time.perf_counter()
    verdict, message, counterexample, margins = Verdict.HELD, "", "", {}
    failure: Exception | None = None
    try:
        margins = law.run(tested, profile, seed)
    except AssertionError as error:
        verdict, message, failure = Verdict.BROKEN, str(error).split("\n")[0], error
    except Exception as error:
        verdict, failure = Verdict.CRASHED, error
        message = traceback.format_exception_only(type(error), error)[0].strip().split("\n")[0]
    if failure is not None:
        with np.printoptions(threshold=40, edgeitems=2):
            counterexample = "\n".join(f"{k} = {v!r}" for k, v in getattr(failure, "drawn", {}).items())
    seconds = time.perf_counter() - begun
    return Outcome(law.id, law.level, law.sentence, verdict, message, counterexample, margins, seconds), failure


def _write(config: pytest.Config, **event: Any) -> None:
    path = config.getoption("--vq-events")
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")
