"""Every public object says what it takes and gives, and every example in a docstring is true."""

import ast
import doctest
import importlib
import inspect
import pkgutil

import pytest

import vq_reference

LEAVES = ("vq_reference.properties", "vq_reference.regressions")
NAMES = [
    "vq_reference",
    *(
        name
        for _, name, _ in pkgutil.walk_packages(vq_reference.__path__, "vq_reference.")
        if not name.startswith(LEAVES) and not name.endswith(".__main__")
    ),
]


def public(tree):
    """Yield the node of a module, and of every public function, class and method in it."""
    yield tree
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield from public(node) if isinstance(node, ast.ClassDef) else [node]


@pytest.mark.parametrize("name", NAMES)
def test_every_example_is_true(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", NAMES)
def test_every_public_object_has_a_docstring(name):
    tree = ast.parse(inspect.getsource(importlib.import_module(name)))
    assert not [getattr(node, "name", name) for node in public(tree) if not ast.get_docstring(node)]


def test_there_are_examples_in_every_file_of_the_oracle():
    finder = doctest.DocTestFinder()
    oracle = [name for name in NAMES if name.count(".") == 1 and not hasattr(importlib.import_module(name), "__path__")]
    assert len(oracle) > len(vq_reference.__path__)
    bare = [n for n in oracle if not any(t.examples for t in finder.find(importlib.import_module(n)))]
    assert not bare
