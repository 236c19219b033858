"""Every mutant is killed by the law that it names, every law kills one, and a mutant leaves nothing behind."""

import copy
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from killing import LAWS, RANKS, assert_is_killed

from vq_reference.testing.adapters.ready.vector_quantize import vector_quantize
from vq_reference.testing.interface.implementation import Wrapped
from vq_reference.testing.interface.stateful import Averaging, Use, Wanted
from vq_reference.testing.mutants import MUTANTS, Mutant, implementation_of_mutant
from vq_reference.testing.recording.trace import Trace
from vq_reference.vector_quantize import VectorQuantize


@pytest.mark.parametrize("name", [name for name, mutant in MUTANTS.items() if mutant.killed_by not in RANKS])
def test_a_mutant_is_killed_by_the_law_that_it_names(name):
    assert_is_killed(MUTANTS[name])


@pytest.mark.parametrize("law", LAWS)
def test_every_law_kills_a_mutant(law):
    assert law in {mutant.killed_by for mutant in MUTANTS.values()}


def test_every_mutant_says_in_words_what_is_wrong_and_changes_what_it_says():
    for name, mutant in MUTANTS.items():
        assert name == mutant.name
        assert mutant.why
        assert mutant.source() != mutant.replace
        assert implementation_of_mutant(name).name == f"mutant:{name}"


def test_an_unknown_mutant_is_named_with_those_there_are():
    with pytest.raises(ValueError, match="mutant 'typo' is not known: expected one of rotation-transposed, "):
        implementation_of_mutant("typo")


SOURCE = """
import functools
LIMIT = 9
FACTOR = 2
class Shape:
    scale = 3
    def __init__(self, side=1): self.side = side
    def area(self): return self.side ** 2
    def words(self): return super().__str__()
    @property
    def half(self): return self.side / 2
    @half.setter
    def half(self, value): self.side = 2 * value
    @functools.cached_property
    def cube(self): return self.side ** 3
    @classmethod
    def unit(cls): return cls(1)
    @staticmethod
    def name(): return "square"
    class Inner:
        def depth(self): return 1
def scaled(v, *, by=FACTOR): return v * by
def nested(values): return [(lambda v: v + 10)(v) for v in values]
@functools.lru_cache
def cached(v): return v + 20
def maker(step):
    def made(v): return v + step
    return made
made_at_import = maker(5)
"""


@pytest.fixture
def subject(tmp_path, monkeypatch):
    """A module of every kind of function, that nothing else imports."""
    (tmp_path / "mutated_subject.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__("mutated_subject")
    del sys.modules["mutated_subject"]


def change(replace, by):
    return Mutant("example", "mutated_subject", replace, by, why="an example", killed_by="")


@pytest.mark.parametrize(
    ("replace", "by", "call", "right", "wrong"),
    [
        ("self.side ** 2", "self.side ** 4", lambda m: m.Shape(2).area(), 4, 16),
        ("self.side / 2", "self.side / 4", lambda m: m.Shape(2).half, 1, 0.5),
        ("self.side = 2 * value", "self.side = value", lambda m: setattr(s := m.Shape(), "half", 3) or s.side, 6, 3),
        ("self.side ** 3", "self.side", lambda m: m.Shape(2).cube, 8, 2),
        ("return cls(1)", "return cls(7)", lambda m: m.Shape.unit().side, 1, 7),
        ('"square"', '"circle"', lambda m: m.Shape.name(), "square", "circle"),
        ("side=1", "side=5", lambda m: m.Shape().side, 1, 5),
        ("self): return 1", "self): return 2", lambda m: m.Shape.Inner().depth(), 1, 2),
        ("v * by", "v / by", lambda m: m.scaled(6), 12, 3),
        ("by=FACTOR", "by=10", lambda m: m.scaled(6), 12, 60),
        ("v + 10", "v + 1", lambda m: m.nested([1]), [11], [2]),
        ("v + step", "v - step", lambda m: m.maker(5)(1), 6, -4),
        ("return v + 20", "w = v; return w", lambda m: m.cached.__wrapped__(1), 21, 1),
    ],
    ids=[
        *("method", "property", "setter", "cached property", "class method", "static method", "default", "inner class"),
        *("function", "keyword default", "nested function", "closure made later", "decorated"),
    ],
)
def test_the_changed_line_runs_inside_the_context_and_never_after(subject, replace, by, call, right, wrong):
    assert call(subject) == right
    with change(replace, by).applied():
        assert call(subject) == wrong
    assert call(subject) == right


def test_whoever_holds_the_function_already_runs_the_changed_line(subject):
    held, bound = subject.scaled, subject.Shape(3).area
    with change("v * by", "v + by").applied(), change("self.side ** 2", "0").applied():
        assert (held(5), bound()) == (7, 0)
    assert (held(5), bound()) == (10, 9)


def test_mutants_of_one_function_may_be_nested(subject):
    outer, inner = change("v * by", "v + by"), change("v * by", "v - by")
    with outer.applied():
        with inner.applied():
            assert subject.scaled(5) == 3
        assert subject.scaled(5) == 7
    assert subject.scaled(5) == 10


def test_the_right_line_is_back_after_an_exception(subject):
    with pytest.raises(ZeroDivisionError), change("v * by", "v / 0").applied():
        subject.scaled(1)
    assert subject.scaled(1) == 2


@pytest.mark.parametrize(
    ("replace", "by", "message"),
    [
        ("LIMIT = 9", "LIMIT = 8", "changes no function"),
        ("scale = 3", "scale = 4", "changes no function"),
        ("no such line", "", "occurs 0 times"),
        ("return", "yield", "occurs 1[0-9] times"),
        ("super().__str__()", "''", "changes which outer variables Shape.words: sees"),
    ],
    ids=["constant", "class attribute", "gone", "ambiguous", "variables of a closure"],
)
@pytest.mark.usefixtures("subject")
def test_a_mutant_that_cannot_be_applied_is_refused(replace, by, message):
    mutant = change(replace, by)
    with pytest.raises(ValueError, match=message), mutant.applied():
        pass


def test_the_operator_behind_the_nearest_code_runs_the_changed_line():
    import torch

    from vq_reference.nn.nearest import nearest

    x, codes = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [0.0]])
    assert nearest(x, codes).tolist() == [1, 0]
    with MUTANTS["one-choice-for-all-tokens"].applied():
        assert nearest(x, codes).tolist() == [1, 1]
        assert torch.ops.vq_reference.nearest(x, codes).tolist() == [1, 1]
    assert nearest(x, codes).tolist() == [1, 0]


@dataclass(frozen=True)
class Noting(Wrapped):
    layer: Any
    noted: list

    def around(self, method, do, *given, **named):
        self.noted.append(method)
        return do(*given, **named)


def test_a_wrapped_layer_has_the_methods_and_attributes_of_the_other():
    class Layer:
        size = 3

        def __call__(self, x, scale=1):
            return scale * x

        def decode(self, indices):
            return -indices

    layer = Noting(Layer(), [])
    assert (layer(2, scale=5), layer.decode(7), layer.size) == (10, -7, 3)
    assert layer.noted == ["call", "decode"]
    assert not hasattr(layer, "step")
    assert copy.copy(layer).layer is layer.layer


def test_what_is_done_with_a_layer_is_noted_by_the_names_of_the_interface_as_it_was_given():
    trace = Trace()
    layer = trace.watch(vector_quantize().lasting).build(Wanted(VectorQuantize(np.eye(2)[None]), Averaging()))
    x = np.eye(2)
    reply = layer(x, use=Use(salt=1))
    x[:] = 0
    layer.decode(indices=reply.indices)
    built, called, decoded = trace.steps
    assert (built.did, built.made, called.did, called.layers, decoded.did) == ("build", 0, "call", (0,), "decode")
    assert called.gave is reply
    assert list(called.given) == ["x", "start", "use", "mask", "lengths"]
    assert called.given["x"].tolist() == [[1, 0], [0, 1]]
    assert (called.given["use"], called.given["mask"]) == (Use(salt=1), None)
    assert list(decoded.given) == ["indices"]
