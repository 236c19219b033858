"""What may import what, how long a file may be, and what the wheel holds."""

import ast
import shutil
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOP = ("vq_reference", "properties", "regressions")
FOLDERS = {
    "vq_reference": "vq_reference",
    "properties": "vq_reference.properties",
    "regressions": "vq_reference.regressions",
}
SOURCES = sorted(
    path for folder in (*FOLDERS, "tests", "studies", "benchmarks") for path in (ROOT / folder).rglob("*.py")
)
LONGEST = 400


def module_of(path):
    """Return the dotted name that a file of an installed package has."""
    folder, *parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join([FOLDERS.get(folder, folder), *(part for part in parts if part != "__init__")])


@cache
def imports_of(path):
    """Return the dotted names that a file imports anywhere in it, relative ones made absolute."""
    names = set()
    package = module_of(path) if path.name == "__init__.py" else module_of(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            home = ".".join([*above, *([node.module] if node.module else [])])
            names |= {home, *(f"{home}.{alias.name}" for alias in node.names)}
    return names


def imports(path, *packages):
    """Return what a file imports of these packages or of what is in them."""
    return sorted(n for n in imports_of(path) if any(n == p or n.startswith(f"{p}.") for p in packages))


CORE = sorted((ROOT / "vq_reference").glob("*.py"))
MODULES = sorted((ROOT / "vq_reference" / "nn").rglob("*.py"))
TESTING = sorted((ROOT / "vq_reference" / "testing").rglob("*.py"))
LEAVES = ("vq_reference.properties", "vq_reference.regressions", "properties", "regressions")


def relative(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", CORE, ids=relative)
def test_the_oracle_is_numpy_alone(path):
    forbidden = ("torch", "hypothesis", "pytest", "scipy", "vq_reference.nn", "vq_reference.testing")
    assert not imports(path, *forbidden)


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_the_torch_modules_know_no_test_tool(path):
    assert not imports(path, "hypothesis", "pytest", "vq_reference.testing", "numpy")


@pytest.mark.parametrize("path", [p for p in SOURCES if not relative(p).startswith("tests")], ids=relative)
def test_nothing_imports_a_law_or_a_pinned_case(path):
    assert not imports(path, *LEAVES)


@pytest.mark.parametrize("path", [p for p in SOURCES if not relative(p).startswith("tests")], ids=relative)
def test_nothing_that_is_installed_imports_a_test_of_this_project(path):
    assert not imports(path, "tests")


def test_the_torch_modules_check_each_kind_of_argument_in_one_place():
    raised = [
        ast.dump(node.exc)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Raise) and node.exc
    ]
    assert sorted(set(raised)) == sorted(raised)


@pytest.mark.parametrize("path", [p for p in SOURCES if relative(p).split("/")[0] in FOLDERS], ids=relative)
def test_nothing_that_is_installed_imports_what_only_makes_pages(path):
    assert not imports(path, "studies", "benchmarks")


def test_importing_the_oracle_loads_no_torch_and_no_test_tool():
    modules = " ".join(module_of(path) for path in CORE)
    program = (
        f"import importlib, sys\nfor name in '{modules}'.split(): importlib.import_module(name)\n"
        "assert not {'torch', 'hypothesis', 'pytest', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_file_is_longer_than_a_reader_can_hold(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Return the names in a wheel built from a copy of what it is built from: no build folder is left here."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, copy)
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    built = tmp_path_factory.mktemp("wheel")
    program = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", program, built], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def test_the_only_top_level_package_of_the_wheel_is_ours(wheel):
    tops = {name.split("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"vq_reference"}


def test_the_wheel_holds_every_file_of_every_package(wheel):
    files = {path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()}
    files = {path for path in files if "__pycache__" not in path.parts and path.suffix != ".pyc"}
    assert files
    expected = {
        f"{FOLDERS[p.relative_to(ROOT).parts[0]].replace('.', '/')}/{'/'.join(p.relative_to(ROOT).parts[1:])}"
        for p in files
    }
    assert expected - wheel == set()
    assert {name for name in wheel if name.startswith("vq_reference/")} - expected == set()


def test_the_wheel_declares_its_command_and_its_plugin(wheel):
    assert any(name.endswith(".dist-info/entry_points.txt") for name in wheel)
    assert "vq_reference/py.typed" in wheel
