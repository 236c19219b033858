"""The pytest plugin: `--vq-target` says what the laws are run on, and every law reports what became of it.

It is loaded in every environment that has vq-reference installed, and does nothing where no law is collected: so it
imports neither torch nor hypothesis before one is.
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from vq_reference.testing.laws.verdict import Account, Outcome, Verdict
from vq_reference.testing.run.expectations import Expectation, ExpectationsRefused, expect, load

if TYPE_CHECKING:
    from vq_reference.testing.interface.implementation import Implementation
    from vq_reference.testing.laws.law import Law

DEFAULT_TARGETS = ("reference.oracle", "reference.SimVQ")
FIXTURE = "implementation"
EXPECTATIONS = pytest.StashKey[Sequence[Expectation]]()
OUTCOME = pytest.StashKey[Outcome]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, all of them prefixed with --vq-."""
    group = parser.getgroup("vq-reference", "laws of vector quantizers")
    group.addoption(
        "--vq-target",
        action="append",
        metavar="TARGET",
        help=f"what the laws are run on, once for each TARGET: a ready adapter, package.module:object or "
        f"path/file.py:object, whose code is executed (default: {' and '.join(DEFAULT_TARGETS)})",
    )
    group.addoption(
        "--vq-profile", choices=("quick", "default", "thorough"), default="default", help="examples drawn for each law"
    )
    group.addoption("--vq-seed", type=int, metavar="N", help="explore other examples than the fixed ones")
    group.addoption("--vq-called", metavar="NAME", help="what an object of one's own is called in reports")
    group.addoption("--vq-device", metavar="DEVICE", help="where the target computes, such as cuda")
    group.addoption("--vq-dtype", metavar="DTYPE", help="what the target computes in, such as float64")
    group.addoption("--vq-folder", metavar="DIR", help="where the target's own modules are found, besides sys.path")
    group.addoption("--vq-law", action="append", metavar="ID", help="run this law, and those named by further --vq-law")
    group.addoption("--vq-strict", action="store_true", help="let a broken should-law fail too")
    group.addoption("--vq-expectations", metavar="FILE", help="laws that are expected to break, and why (TOML)")
    group.addoption("--vq-events", metavar="FILE", help="append a JSON line for each law started and ended")


def pytest_configure(config: pytest.Config) -> None:
    """Read the expectations, and keep the accounts."""
    config.stash[EXPECTATIONS] = ()
    named = config.getoption("--vq-expectations")
    if named:
        from vq_reference.testing.laws.registry import laws

        try:
            config.stash[EXPECTATIONS] = load(Path(named), laws())
        except ExpectationsRefused as error:
            raise pytest.UsageError(f"--vq-expectations {error}") from error
    config.pluginmanager.register(Accounts(config), "vq-accounts")


def law_of(item: pytest.Item) -> Law | None:
    """Return the law that a test item is, or None for any other test."""
    return getattr(getattr(item, "function", None), "law", None)


def target_of(item: pytest.Item) -> str:
    """Return the name of the target that a law is run on."""
    assert isinstance(item, pytest.Function)
    return str(item.callspec.params[FIXTURE])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each law once for each target."""
    if FIXTURE in metafunc.fixturenames and hasattr(metafunc.function, "law"):
        targets = metafunc.config.getoption("--vq-target") or DEFAULT_TARGETS
        metafunc.parametrize(FIXTURE, targets, indirect=True, scope="session")


@pytest.fixture(scope="session")
def implementation(request: pytest.FixtureRequest) -> Implementation:
    """Return the implementation under test, from `--vq-target`."""
    from vq_reference.testing.run.judge import versions_of
    from vq_reference.testing.run.targets import TargetUnavailable, implementation_of

    given = {name: request.config.getoption(f"--vq-{name}") for name in ("device", "dtype", "called")}
    if folder := request.config.getoption("--vq-folder"):
        # only now, when vq_reference is imported, since the folder may hold another copy; behind a release under test
        asked = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        sys.path.insert(max((i + 1 for i, path in enumerate(sys.path) if path in asked), default=0), folder)
    try:
        made = implementation_of(request.param, **{name: value for name, value in given.items() if value})
    except TargetUnavailable as error:
        pytest.fail(str(error), pytrace=False)
    _write(request.config, event="made", versions=versions_of(made))
    return made


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let -k find a law by its id."""
    law = law_of(item)
    if law:
        item.extra_keyword_matches.add(law.id)


@pytest.hookimpl(tryfirst=True)
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
    from vq_reference.testing.run.judge import judge, versions_of

    config = pyfuncitem.config
    _write(config, event="started", law=law.id)
    tested = cast("Implementation", pyfuncitem.funcargs[FIXTURE])
    profile, expected = config.getoption("--vq-profile"), config.stash[EXPECTATIONS]
    outcome, error = judge(law, tested, profile, config.getoption("--vq-seed"))
    (outcome,) = expect([outcome], expected, target_of(pyfuncitem), versions_of(tested), profile)
    pyfuncitem.stash[OUTCOME] = outcome
    if outcome.verdict is Verdict.NOT_APPLICABLE:
        pytest.skip(f"not applicable: {outcome.message}")
    if outcome.verdict is Verdict.EXPECTED:
        pytest.xfail(f"expected: {outcome.expectation}")
    if outcome.holds_unexpectedly:
        pytest.fail(f"expected to break ({outcome.expectation}), but holds: take it off the list", pytrace=False)
    if error is not None:
        if not outcome.fails(config.getoption("--vq-strict")):
            pytest.xfail(f"should-law {outcome.verdict.value}: {outcome.message}")
        raise error
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Hang the outcome of a law on its report, which is what reaches the process that counts, with pytest-xdist too."""
    report = yield
    law = law_of(item)
    if law is None or call.when == "teardown":
        return report
    outcome = item.stash.get(OUTCOME, None)
    if outcome is None and call.excinfo is not None:
        why = str(call.excinfo.value).split("\n")[0]
        outcome = Outcome(law.id, law.level, law.sentence, Verdict.NOT_RUN, why)
    if outcome is not None:
        report.vq_outcome = (target_of(item), outcome.as_json())  # type: ignore[attr-defined]
        _write(item.config, event="ended", outcome=outcome.as_json())
    return report


class Accounts:
    """What was planned for each target and what became of it, kept in the process that prints the summary."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._planned: defaultdict[str, list[str]] = defaultdict(list)
        self._outcomes: defaultdict[str, list[Outcome]] = defaultdict(list)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note what is planned; under pytest-xdist a worker does, and sends it along at its end."""
        if session.config.option.collectonly:
            return
        for item in session.items:
            law = law_of(item)
            if law:
                self._planned[target_of(item)].append(law.id)
        if hasattr(self._config, "workeroutput"):
            self._config.workeroutput["vq_planned"] = dict(self._planned)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what a worker of pytest-xdist had planned; all of them collect the same."""
        self._planned.update(getattr(node, "workeroutput", {}).get("vq_planned", {}))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a law that has ended."""
        ended = getattr(report, "vq_outcome", None)
        if ended:
            target, outcome = ended
            self._outcomes[target].append(Outcome.from_json(outcome))

    def accounts(self) -> dict[str, Account]:
        """Return the account of each target."""
        return {target: Account(planned, self._outcomes[target]) for target, planned in self._planned.items()}

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a session that left a law without outcome: stopped early, or lost with a worker."""
        counts = not hasattr(self._config, "workeroutput")
        lost = counts and any(account.unaccounted for account in self.accounts().values())
        if lost and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print one account for each target, above pytest's own last line."""
        accounts = self.accounts()
        if accounts:
            terminalreporter.section("laws")
        for target, account in accounts.items():
            terminalreporter.write_line(f"{target}: {account}")


def _write(config: pytest.Config, **event: Any) -> None:
    path = config.getoption("--vq-events")
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")
