"""What a user imports stands in `vq_reference.testing`, and nowhere else is a user sent."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vq_reference.testing

ROOT = Path(__file__).parents[2]
READ = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").rglob("*.py"))]
DEEPER = re.compile(r"(?:from|import) vq_reference\.testing\.(\w+)")
DESCRIBE = ROOT / "vq_reference" / "testing" / "describe"


@pytest.mark.parametrize("path", READ, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_user_is_sent_to_no_deeper_module(path):
    assert not DEEPER.findall(path.read_text("utf-8"))


@pytest.mark.parametrize("path", sorted(DESCRIBE.glob("*.py")), ids=lambda path: path.name)
def test_no_text_that_describe_prints_names_a_deeper_module(path):
    tree = ast.parse(path.read_text("utf-8"))
    examples = {
        ast.get_docstring(n, clean=False)
        for n in ast.walk(tree)
        if isinstance(n, (ast.Module, ast.ClassDef, ast.FunctionDef))
    }
    texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    assert not [text for text in texts if text not in examples and DEEPER.search(text)]


@pytest.mark.parametrize("name", vq_reference.testing.__all__)
def test_every_public_name_is_there_and_is_explained(name):
    assert getattr(vq_reference.testing, name).__name__ == name
    assert f"`{name}`" in vq_reference.testing.__doc__


def test_importing_the_public_face_imports_nothing_that_costs_time():
    code = (
        "import sys, vq_reference.testing; "
        "print([m for m in ('torch', 'jax', 'hypothesis', 'numpy', 'pytest') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.strip() == "[]"
