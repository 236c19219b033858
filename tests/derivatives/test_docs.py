"""docs/stop-gradients.md says what is true: each block runs, and prints what is shown below it."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).parents[2] / "docs" / "stop-gradients.md"
BLOCK = re.compile(r"```python\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)


def assert_prints(source: str, shown: str, namespace: dict) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(source, str(PAGE), "exec"), namespace)
    # gradcheck ends its message with an empty line
    assert printed.getvalue().strip() == shown.strip(), source


def test_every_block_of_the_page_prints_what_it_shows():
    text = PAGE.read_text(encoding="utf-8")
    blocks = BLOCK.findall(text)
    assert len(blocks) == text.count("```python") == text.count("```text")
    namespace: dict = {}
    torch.manual_seed(0)
    for source, shown in blocks:
        assert_prints(source, shown, namespace)


def test_a_page_that_shows_something_else_fails():
    source, shown = BLOCK.findall(PAGE.read_text(encoding="utf-8"))[0]
    with pytest.raises(AssertionError, match="gradcheck"):
        assert_prints(source.replace(".detach()", ""), shown, {})
