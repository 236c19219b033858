"""The rooms of `vq_reference.testing`: which there are, what each may import, and that a name means one thing."""

import ast
from collections import defaultdict

import pytest
from test_layering import ROOT, TESTING, imports, module_of, relative

BASE = "vq_reference.testing"
# room → the rooms that it may import; what stands loose at the top may import all of them
ROOMS = {
    "interface": (),
    "derivatives": (),
    "releases": (),
    "processes": ("releases",),
    "recording": ("interface",),
    "adapters": ("interface",),
    "laws": ("interface", "processes", "recording"),
    "describe": ("adapters", "interface", "laws"),
    "mutants": ("adapters", "interface", "laws"),
    "cases": ("adapters", "derivatives", "interface", "laws", "mutants", "processes", "releases"),
    "reporting": ("adapters", "cases", "interface", "laws", "processes", "recording"),
    "run": ("describe", "interface", "laws", "recording", "releases", "reporting"),
    "experiments": ("interface", "laws", "mutants", "processes", "releases", "run"),
}
# folder of a room → the other folders of that room that it may import
WITHIN = {
    "adapters.torch": (),
    "adapters.codegen": ("adapters.torch",),
    "adapters.declare": ("adapters.codegen", "adapters.torch"),
    "adapters.ready": ("adapters.codegen", "adapters.declare", "adapters.torch"),
    "laws.bounds": (),
    "laws.expected": ("laws.bounds",),
    "laws.strategies": ("laws.bounds", "laws.expected"),
    "reporting.repro": (),
    "run.expectations": (),
    "experiments.drift": (),
    "experiments.issue_177": (),
}
LOOSE = {"__init__", "__main__", "cli", "conform", "explain", "plugin", "torch_features"}
ROOMED = [path for path in TESTING if path.parent.name != "testing"]
PACKAGES = [path for path in ROOMED if path.name == "__init__.py"]


def room_of(path, depth=1):
    return ".".join(path.relative_to(ROOT / "vq_reference" / "testing").parts[:-1][:depth])


def test_every_room_stands_in_the_table():
    assert {room_of(path) for path in ROOMED} == set(ROOMS)


def test_the_table_has_no_circle():
    """Each room imports rooms that stand above it."""
    seen = set()
    for room, others in ROOMS.items():
        assert set(others) <= seen, room
        seen.add(room)


def test_only_what_a_user_calls_stands_outside_of_a_room():
    assert {path.stem for path in TESTING if path.parent.name == "testing"} == LOOSE


@pytest.mark.parametrize("path", ROOMED, ids=relative)
def test_a_room_imports_only_what_the_table_allows(path):
    mine = room_of(path)
    allowed = {f"{BASE}.{room}" for room in (mine, *ROOMS[mine])}
    found = [name for name in imports(path, BASE) if name != BASE]
    assert not [name for name in found if ".".join(name.split(".")[:3]) not in allowed]


@pytest.mark.parametrize("path", [path for path in ROOMED if room_of(path, 2) in WITHIN], ids=relative)
def test_a_folder_of_a_room_imports_only_what_the_table_allows(path):
    mine = room_of(path, 2)
    forbidden = set(WITHIN) - {mine, *WITHIN[mine]}
    siblings = [f"{BASE}.{folder}" for folder in forbidden if folder.startswith(f"{room_of(path)}.")]
    assert not imports(path, *siblings)


@pytest.mark.parametrize("path", PACKAGES, ids=relative)
def test_a_room_says_in_one_line_what_it_is_for(path):
    assert len(ast.get_docstring(ast.parse(path.read_text("utf-8"))).splitlines()[0]) > len(path.parent.name)


def test_no_two_modules_have_one_name():
    places = defaultdict(list)
    for path in TESTING:
        if not path.stem.startswith("__"):
            places[path.name].append(module_of(path))
    assert not [found for found in places.values() if len(found) > 1]


def test_no_two_public_classes_have_one_name():
    places = defaultdict(list)
    for path in TESTING:
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(module_of(path))
    assert not [found for found in places.values() if len(found) > 1]
