"""What a run changes besides its outputs, and putting it back: random numbers, modules, the default dtype."""

from __future__ import annotations

import random
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map_only

GENERATORS = (torch.Generator, np.random.Generator, random.Random)
# nearly all that modules hold; to ask whether something is a torch.Generator takes torch as long as an operation
COMMON = frozenset((bool, int, float, str, dict, OrderedDict, type(None)))


class Randomness:
    """The state of every random number generator that a module may draw from, its own ones included."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        held = (value for module in modules for value in vars(module).values() if type(value) not in COMMON)
        self._put_back = [_putting_back(value) for value in held if isinstance(value, GENERATORS)]
        self._torch = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        self._numpy = _numpys_state()
        self._python = random.getstate()
        self._moved: tuple[bool, bool] | None = None

    def put_back(self) -> None:
        """Make every generator go on as it would have gone on when this object was made."""
        for back in self._put_back:
            back()
        torch.set_rng_state(self._torch)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)
        if self._moved is None:
            # these two take as long as a small module's forward: what the first run does not move is left alone
            self._moved = not _same(_numpys_state(), self._numpy), random.getstate() != self._python
        numpys, pythons = self._moved
        if numpys:
            np.random.set_state(self._numpy)  # noqa: NPY002
        if pythons:
            random.setstate(self._python)


def _putting_back(generator: Any) -> Callable[[], Any]:
    """Return what puts one of GENERATORS back to where it is."""
    if isinstance(generator, torch.Generator):
        return partial(generator.set_state, generator.get_state())
    if isinstance(generator, np.random.Generator):
        return partial(setattr, generator.bit_generator, "state", generator.bit_generator.state)
    return partial(generator.setstate, generator.getstate())


def _numpys_state() -> Any:
    return np.random.get_state(legacy=False)  # noqa: NPY002  # the global one is what a module may use


def _same(one: Any, other: Any) -> bool:
    """Whether two states are equal: nested dicts with arrays in them, whose bytes are compared fastest."""
    if isinstance(one, dict):
        return all(_same(one[key], other[key]) for key in one)
    return bool(one.tobytes() == other.tobytes() if isinstance(one, np.ndarray) else one == other)


class Attributes:
    """The attributes of some modules, parameters and buffers among them, as they stand now.

    The tensors themselves are not copied: a run is given copies in their place, and never touches them. A tensor's
    place is the dict that it lies in, None where its module has to be told.

    shared: addresses of the memory that more than one of the constant ones lie in.
    """

    TABLES = ("_parameters", "_buffers", "_modules")

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._saved = [
            (m, vars(m), dict(vars(m)), [(vars(m)[table], dict(vars(m)[table])) for table in self.TABLES])
            for m in modules
        ]
        # found once, since there is a run for every step: what is a tensor, where it lies, and what was compiled
        self._tensors: list[tuple[nn.Module, dict[str, Any] | None, str, Any]] = []
        for module in modules:
            told = _keeps_a_list_of_its_own(module)
            others = {name: value for name, value in vars(module).items() if name not in self.TABLES}
            for place, values in (
                (None if told else module._parameters, module._parameters),
                (module._buffers, module._buffers),
                (module._modules, module._modules),
                (vars(module), others),
            ):
                self._tensors += [(module, place, key, each) for key, each in values.items() if _holds_tensors(each)]
        # memory that several of them are names for: what is written by one name is read by the other
        owners: dict[int, set[int]] = {}
        for *_, value in self._tensors:
            for tensor in [value] if isinstance(value, Tensor) else tree_flatten(value)[0]:
                if isinstance(tensor, Tensor) and tensor.layout is torch.strided and not tensor.requires_grad:
                    owners.setdefault(tensor.untyped_storage().data_ptr(), set()).add(id(tensor))
        self.shared = {address for address, tensors in owners.items() if address and len(tensors) > 1}
        self._compiled = [m for m in modules if eager(m) is not m]
        self._compiled_in_place = [m for m in modules if vars(m).get("_compiled_call_impl") is not None]

    def put_back(self) -> None:
        """Give every module its attributes back, the very same objects."""
        for module, held, attributes, tables in self._saved:
            if vars(module) is not held:
                module.__dict__ = held
            held.clear()
            held.update(attributes)
            for table, entries in tables:
                table.clear()
                table.update(entries)
        for module, place, name, tensor in self._tensors:
            if place is None:
                setattr(module, name, tensor)

    def replace(self, copy: Callable[[Tensor], Tensor]) -> None:
        """Put a `copy` in the place of each tensor, those in lists and dicts too; compiled modules run eagerly."""
        for module, place, name, value in self._tensors:
            twin = copy(value) if isinstance(value, Tensor) else tree_map_only(Tensor, copy, value)
            if place is None:
                setattr(module, name, twin)
            else:
                place[name] = twin
        for module in self._compiled:
            vars(module)["forward"] = eager(module).forward
        for module in self._compiled_in_place:
            vars(module)["_compiled_call_impl"] = None


def _holds_tensors(value: Any) -> bool:
    """Whether a value is a tensor, or a list, tuple or dict with one in it."""
    if not isinstance(value, (list, tuple, dict)):
        return isinstance(value, Tensor)
    return len(value) > 0 and any(isinstance(leaf, Tensor) for leaf in tree_flatten(value)[0])


def _keeps_a_list_of_its_own(module: nn.Module) -> bool:
    """Whether a module has to be told of a new parameter: nn.RNN does. The others' setattr takes longer than a copy."""
    return type(module).__setattr__ is not nn.Module.__setattr__


def eager(function: Any) -> Any:
    """Return what `torch.compile` was given, for a compiled module or function; anything else as it is."""
    if type(function).__name__ == "OptimizedModule":
        return function._orig_mod
    return getattr(function, "_torchdynamo_orig_callable", function)


def compiled(function: Any, modules: Sequence[nn.Module]) -> bool:
    """Whether `torch.compile` has a hand in the function or in one of the modules."""
    in_place = any(vars(module).get("_compiled_call_impl") is not None for module in modules)
    return in_place or any(eager(thing) is not thing for thing in (function, *modules))


@contextmanager
def compiling_nothing() -> Iterator[None]:
    """Run functions that `torch.compile` was given as they were, where torch can (2.6 and later)."""
    if "torch._dynamo" not in sys.modules or not hasattr(getattr(torch, "compiler", None), "set_stance"):
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Make new tensors of this dtype within the context."""
    before = torch.get_default_dtype()
    set_default_dtype(dtype)
    try:
        yield
    finally:
        set_default_dtype(before)


def set_default_dtype(dtype: torch.dtype) -> None:
    """Set it where it is another: to set it, even anew, takes torch longer than to run a small module."""
    if torch.get_default_dtype() is not dtype:
        torch.set_default_dtype(dtype)


@contextmanager
def standing_in(functions: Mapping[type, Callable[..., Any]]) -> Iterator[None]:
    """Within the context, ``apply`` of each custom autograd.Function runs the plain function that it stands for."""
    before = {custom: vars(custom).get("apply") for custom in functions}
    try:
        for custom, function in functions.items():
            custom.apply = staticmethod(function)  # type: ignore[attr-defined]
        yield
    finally:
        for custom, apply in before.items():
            if apply is None:
                del custom.apply  # type: ignore[attr-defined]
            else:
                custom.apply = apply  # type: ignore[attr-defined]
