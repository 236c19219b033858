"""One law that is expected to break: read from a file, and applied to what became of the law."""

from __future__ import annotations

import datetime
import difflib
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from vq_reference.testing.laws.verdict import Outcome, Verdict

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FIELDS = ("reason", "link", "target", "when", "expires")


class ExpectationsRefused(Exception):
    """The file cannot be used. The message names the file, the entry, and what was expected."""


@dataclass(frozen=True)
class Expectation:
    """One law that is expected to break.

    law: its id. reason: why, for whoever reads the report. link: where that is discussed. target: pattern of target
    names, such as "lucidrains.*". when: distribution, or "python", → versions; all conditions have to be met, and a
    package that is not part of what is tested meets none. expires: the first day on which it is no longer expected.
    """

    law: str
    reason: str
    link: str = ""
    target: str = "*"
    when: Mapping[str, SpecifierSet] = field(default_factory=dict)
    expires: datetime.date | None = None

    def applies(self, target: str, versions: Mapping[str, str], today: datetime.date) -> bool:
        """Say whether the law is expected to break on that target, with these versions, today."""
        # a name may have brackets, which a pattern reads otherwise
        named = target == self.target or fnmatchcase(target, self.target)
        if not named or (self.expires and today >= self.expires):
            return False
        return all(_meets(versions.get(name), versions_wanted) for name, versions_wanted in self.when.items())


def _meets(version: str | None, wanted: SpecifierSet) -> bool:
    try:
        return version is not None and wanted.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return False


def shipped() -> dict[str, Path]:
    """Return the files that come with this package, by name: known faults of released packages, explained."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.toml"))}


def load(path: Path, known: Collection[str]) -> tuple[Expectation, ...]:
    """Read expectations from a TOML file, or from a shipped one by its name.

    known: the ids of all laws. Raises ExpectationsRefused.
    """
    if not path.exists():
        path = shipped().get(str(path), path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ExpectationsRefused(f"{path}: {error}") from error
    made = []
    for law, entries in tables.items():
        if law not in known:
            near = difflib.get_close_matches(law, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "`vq-check laws` lists them"
            raise ExpectationsRefused(f"{path}: {law!r} is no law: {hint}")
        for entry in entries if isinstance(entries, list) else [entries]:
            try:
                made.append(_expectation(law, entry))
            except (TypeError, ValueError) as error:
                raise ExpectationsRefused(f"{path}: [[{law!r}]]: {error}") from error
    return tuple(made)


def _expectation(law: str, entry: Any) -> Expectation:
    if not isinstance(entry, dict):
        raise TypeError(f'expected a table, such as ["{law}"], found {entry!r}')
    unknown = sorted(set(entry) - set(FIELDS))
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: expected some of {', '.join(FIELDS)}")
    for name in ("reason", "link", "target"):
        if name in entry and not isinstance(entry[name], str):
            raise TypeError(f"{name} is {entry[name]!r}: expected a string")
    if not entry.get("reason", "").strip():
        raise ValueError("reason is missing: say why the law is expected to break")
    expires = entry.get("expires")
    if expires is not None and type(expires) is not datetime.date:  # a datetime is a date, and has no day to compare
        raise TypeError(f"expires is {expires!r}: expected a date such as 2027-01-31, without quotes")
    when = entry.get("when", {})
    if not isinstance(when, dict):
        raise TypeError(f'when is {when!r}: expected a table such as {{ torch = ">=2.4" }}')
    try:
        conditions = {canonicalize_name(name): SpecifierSet(versions) for name, versions in when.items()}
    except (InvalidSpecifier, AttributeError, TypeError) as error:
        raise ValueError(f'when: {error}: expected versions such as ">=1.20.1, <1.20.11"') from error
    return Expectation(**{**entry, "law": law, "when": conditions})


def expect(
    outcomes: Iterable[Outcome],
    expectations: Sequence[Expectation],
    target: str,
    versions: Mapping[str, str],
    profile: str,
    today: datetime.date | None = None,
) -> list[Outcome]:
    """Return the outcomes with what was expected written into them: a broken or crashed law becomes expected.

    versions: of the packages that the target consists of, and of "python". A law that holds keeps its verdict, and
    fails by `Outcome.holds_unexpectedly`; not with the profile "quick", whose few examples may miss what is there.
    """
    today = today or datetime.date.today()
    at_hand: dict[str, str] = {canonicalize_name(name): version for name, version in versions.items()}
    judged = []
    for outcome in outcomes:
        of_law = [e for e in expectations if e.law == outcome.law and e.applies(target, at_hand, today)]
        if of_law and not (outcome.verdict is Verdict.HELD and profile == "quick"):
            reason = f"{of_law[0].reason} {of_law[0].link}".strip()
            verdict = Verdict.EXPECTED if outcome.verdict in (Verdict.BROKEN, Verdict.CRASHED) else outcome.verdict
            outcome = replace(outcome, verdict=verdict, expectation=reason)
        judged.append(outcome)
    return judged
