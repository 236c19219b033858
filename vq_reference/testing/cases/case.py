"""One pinned case, and its file: JSON after ``case.schema.json``, every float exact, in hexadecimal."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from vq_reference.arguments import Array

FORM = 1


class CaseRefused(Exception):
    """A case that cannot be used. The message says why."""


@dataclass(frozen=True)
class PinnedCase:
    """A known bug: where it was, an input that shows it, and what right code gives for that input.

    id, what, formula, link, flags: for the reader; `docs/cases.md` says what each flag stands for.
    package, first_bad, last_bad, first_good: releases, the last two of which the case is run on; None where no release
    shows the bug, and first_good None where none is free of it. mutant: the same fault in the reference, if there is
    one. dtype: what is computed in. layer: the layer that is asked for, see `layer.schema` in the schema file.
    x: tokens, channels last. mask: bool, True for tokens, or None. g_output: as x. g_losses: (L,), for a backward from
    ⟨g_output, output⟩ + Σ g_losses·ℓ. expected: quantity → what right code gives; bound: the same → how far off
    rounding may bring it.
    """

    id: str
    what: str
    formula: str
    link: str | None
    package: str | None
    first_bad: str | None
    last_bad: str | None
    first_good: str | None
    mutant: str | None
    flags: tuple[str, ...]
    dtype: str
    layer: Mapping[str, Any]
    x: Array
    mask: Array | None
    g_output: Array
    g_losses: Array
    expected: Mapping[str, Array]
    bound: Mapping[str, Array]

    def as_json(self) -> dict[str, Any]:
        """Return the case as plain data, floats in hexadecimal."""
        return {"form": FORM, **{name: encoded(getattr(self, name)) for name in self.__dataclass_fields__}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PinnedCase:
        """Return the case of plain data. Raises CaseRefused for a form that this version does not know."""
        if data["form"] != FORM:
            raise CaseRefused(f"form {data['form']}: this version reads form {FORM}")
        values = {name: decoded(value) for name, value in data.items() if name != "form"}
        return cls(**{**values, "flags": tuple(values["flags"])})


def encoded(value: Any) -> Any:
    """Return arrays as their shape and entries, floats as `float.hex` writes them; all else as it is.

    >>> encoded(np.array([[0.5, 3.0]]))
    {'shape': [1, 2], 'float64': ['0x1.0000000000000p-1', '0x1.8000000000000p+1']}
    >>> encoded({"beta": 0.25})
    {'beta': '0x1.0000000000000p-2'}
    """
    if isinstance(value, np.ndarray):
        kind = {"f": "float64", "i": "int64", "b": "bool"}[value.dtype.kind]
        return {"shape": list(value.shape), kind: [encoded(entry) for entry in value.ravel().tolist()]}
    if isinstance(value, Mapping):
        return {name: encoded(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [encoded(part) for part in value]
    return value.hex() if isinstance(value, float) else value


def decoded(value: Any) -> Any:
    """Return what `encoded` was given.

    >>> decoded(encoded(np.array([0.1])))
    array([0.1])
    """
    if isinstance(value, dict) and "shape" in value:
        ((kind, entries),) = ((name, part) for name, part in value.items() if name != "shape")
        return np.array([decoded(entry) for entry in entries], dtype=kind).reshape(value["shape"])
    if isinstance(value, dict):
        return {name: decoded(part) for name, part in value.items()}
    if isinstance(value, list):
        return [decoded(part) for part in value]
    if isinstance(value, str) and value.lstrip("-")[:2] in ("0x", "in", "na"):
        try:
            return float.fromhex(value)
        except ValueError:
            return value
    return value


def read(path: Path) -> PinnedCase:
    """Return the case in that file. The schema is not checked here: `check` does."""
    return PinnedCase.from_json(json.loads(path.read_text("utf-8")))


def read_all(folder: Path) -> dict[str, PinnedCase]:
    """Return the cases of a folder by id. Raises CaseRefused for a file that is not named after its id."""
    cases = {}
    for path in sorted(folder.glob("*.json")):
        case = read(path)
        if path.stem != case.id:
            raise CaseRefused(f"{path.name} holds the case {case.id!r}: name the file after its case")
        cases[case.id] = case
    return cases


def write(case: PinnedCase, folder: Path) -> Path:
    """Write the case to a file that is named after it. Raises CaseRefused where the schema is not met."""
    data = case.as_json()
    check(data)
    path = folder / f"{case.id}.json"
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def check(data: Mapping[str, Any]) -> None:
    """Raise CaseRefused unless the data meet the schema. Needs jsonschema."""
    jsonschema = importlib.import_module("jsonschema")  # with the tests, and not with the library
    try:
        jsonschema.validate(data, schema())
    except jsonschema.ValidationError as error:
        raise CaseRefused(f"{'/'.join(map(str, error.absolute_path)) or 'the case'}: {error.message}") from None


def schema() -> dict[str, Any]:
    """Return the JSON schema of a case."""
    made: dict[str, Any] = json.loads(files(__package__).joinpath("case.schema.json").read_text("utf-8"))
    return made
