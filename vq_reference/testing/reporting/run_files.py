"""A run as files: JSON for programs, JUnit for CI servers, and a script for each broken law."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from vq_reference import __version__
from vq_reference.testing.laws.verdict import Outcome, Verdict
from vq_reference.testing.reporting.known_bugs import nearest_known_bug
from vq_reference.testing.reporting.results import Result

# the version of the form of the JSON file, in `schema`; raised when a reader of the last one would stumble
FORM = 1
# what XML 1.0 cannot hold, and a target may well print
NOT_IN_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def schema() -> dict[str, Any]:
    """Return the JSON schema that `as_json` follows."""
    made: dict[str, Any] = json.loads(files(__package__).joinpath("run.schema.json").read_text("utf-8"))
    return made


def as_json(results: Mapping[str, Result], strict: bool) -> dict[str, Any]:
    """Return the run as plain data. A number that JSON has no word for is a string: "nan", "inf", "-inf"."""
    return {
        "form": FORM,
        "vq_reference": __version__,
        "strict": strict,
        "failed": any(result.account.fails(strict) for result in results.values()),
        "runs": [_run(name, result, strict) for name, result in results.items()],
    }


def _run(name: str, result: Result, strict: bool) -> dict[str, Any]:
    counted = {verdict.value: sum(o.verdict is verdict for o in result.outcomes) for verdict in Verdict}
    outcomes = []
    for outcome in result.outcomes:
        bug = nearest_known_bug(outcome.law, result.outcomes) if outcome.counterexample else None
        said = {"fails": outcome.fails(strict), "nearest_known_bug": str(bug) if bug else None}
        outcomes.append({**outcome.as_json(), "margin": outcome.margin, **said})
    made = {
        "name": name,
        "target": result.plan.target,
        "profile": result.plan.profile,
        "seed": result.plan.seed,
        "versions": dict(result.versions),
        "account": {"planned": len(result.account.planned), **counted, "unaccounted": result.account.unaccounted},
        "laws": outcomes,
    }
    return {key: _finite(value) for key, value in made.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def as_junit(results: Mapping[str, Result], strict: bool) -> str:
    """Return the run as JUnit XML: a suite for each run, a case for each law.

    A law that fails the run is a failure where it is broken and an error where it crashed or was never run; any other
    that did not hold is skipped, with the reason.
    """
    suites = ET.Element("testsuites", name="vq-check")
    for name, result in results.items():
        suite = ET.SubElement(suites, "testsuite", name=name)
        for outcome in result.outcomes:
            family, _, law = outcome.law.partition(".")
            case = ET.SubElement(
                suite, "testcase", classname=f"{name}.{family}", name=law, time=f"{outcome.seconds:.3f}"
            )
            kind = _kind(outcome, strict)
            if kind:
                message = NOT_IN_XML.sub("?", f"{outcome.verdict.value}: {outcome.expectation or outcome.message}")
                ET.SubElement(case, kind, message=message).text = NOT_IN_XML.sub("?", _text(outcome))
        for kind, plural in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
            suite.set(plural, str(len(suite.findall(f"testcase/{kind}"))))
        suite.set("tests", str(len(suite)))
    ET.indent(suites)
    return ET.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _kind(outcome: Outcome, strict: bool) -> str | None:
    if outcome.fails(strict):
        return "error" if outcome.verdict in (Verdict.CRASHED, Verdict.NOT_RUN) else "failure"
    return None if outcome.verdict is Verdict.HELD else "skipped"


def _text(outcome: Outcome) -> str:
    found = outcome.counterexample
    return "\n".join([outcome.sentence, outcome.message, *(found.inputs if found else ())])


def scripts(results: Mapping[str, Result]) -> Iterator[tuple[str, str]]:
    """Yield a file name and a script for each broken law of each run that has one."""
    for name, result in results.items():
        for outcome in result.outcomes:
            if outcome.counterexample and outcome.counterexample.script:
                yield script_name(name, outcome), outcome.counterexample.script


def script_name(name: str, outcome: Outcome) -> str:
    """Return the name of the file for the script of a law that broke in the run of that name."""
    return re.sub(r"[^\w.-]+", "_", f"{name}-{outcome.law}") + ".py"


def write(
    results: Mapping[str, Result], strict: bool, json_file: Path | None, junit: Path | None, folder: Path | None
) -> None:
    """Write the files that were asked for; the folder of the scripts is made."""
    if json_file:
        text = json.dumps(as_json(results, strict), indent=1, ensure_ascii=False, allow_nan=False)
        json_file.write_text(text + "\n", encoding="utf-8")
    if junit:
        junit.write_text(as_junit(results, strict), encoding="utf-8")
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        for name, source in scripts(results):
            (folder / name).write_text(source, encoding="utf-8")
