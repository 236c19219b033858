"""The page, from its template and the numbers of the runs: no number is written into the text by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from studies.evidence import record
from studies.evidence.quotes import quotes

README = record.DOCS.parent / "README.md"
# a page is all of its file, and the README's part the lines from its heading to the next one
TEMPLATES = {record.DOCS / "why-the-loss-inflated.md": "page.md.j2", README: "readme.md.j2"}


def render(data: dict[str, Any]) -> dict[Path, str]:
    """Return the text of each page, and of the README's part, made of the numbers in `data`, by experiment.

    Raises jinja2.UndefinedError for a number that a template asks for and `data` does not have.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # Markdown, from files of this repository
    )
    environment.filters |= {"digits": digits, "range": spread, "sentence": sentence}
    known = {**data, **quotes(data)}
    return {page: environment.get_template(template).render(known) for page, template in TEMPLATES.items()}


def load() -> dict[str, Any]:
    """Return the numbers of every experiment, by its name."""
    return {path.stem: record.read(path.stem) for path in sorted(record.DATA.glob("*.json"))}


def write() -> None:
    """Write the page, and its part of the README."""
    for path, text in render(load()).items():
        whole = text if path != README else path.read_text(encoding="utf-8").replace(part(text), text)
        path.write_text(whole, encoding="utf-8")


def part(text: str) -> str:
    """Return what the README says now under the heading of `text`. Raises ValueError where it has none."""
    heading = text.split("\n", 1)[0]
    readme = README.read_text(encoding="utf-8")
    start = readme.index(f"{heading}\n")
    end = readme.find("\n## ", start)
    return readme[start:] if end < 0 else readme[start : end + 1]


def digits(value: float, count: int = 2) -> str:
    """Return a number with `count` significant digits, as text is read, and an integer, which is a count, whole.

    >>> digits(0.0123), digits(1570.4, 4), digits(389000.0), digits(0.0), digits(218)
    ('0.012', '1,570', '3.9 × 10⁵', '0', '218')
    """
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{count - 1}e}".split("e")
    power = int(exponent)
    if not -5 < power < 5:
        return f"{mantissa} × 10{str(power).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"
    return f"{float(f'{value:.{count - 1}e}'):,.{max(0, count - 1 - power)}f}"


def sentence(text: object) -> str:
    """Return the text with its first letter large.

    >>> sentence("refuted in 1.20.11")
    'Refuted in 1.20.11'
    """
    words = str(text)
    return words[:1].upper() + words[1:]


def spread(triple: tuple[float, float, float], count: int = 2) -> str:
    """Return the middle of a few seeds with smallest and largest: "0.012 (0.011 to 0.014)".

    >>> spread((1.0, 2.0, 3.0), 1)
    '2 (1 to 3)'
    """
    low, middle, high = (digits(value, count) for value in triple)
    return f"{middle} ({low} to {high})" if low != high else middle
