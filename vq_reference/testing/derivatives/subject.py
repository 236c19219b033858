"""The program under test as a function of some tensors: runs of it that leave no trace behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from vq_reference.testing.derivatives.reach import modules_of
from vq_reference.testing.derivatives.state import Attributes, Randomness, compiled, eager, set_default_dtype
from vq_reference.testing.derivatives.structure import named_tensors

PLAIN = (bool, int, float, str)

Point = Mapping[str, Tensor]
Outputs = dict[str, Tensor]
Call = Callable[[AbstractContextManager[None]], Outputs]


class Program:
    """A module or callable, its inputs, and the tensors to differentiate by.

    Each run is given copies of inputs, parameters and buffers, in one dtype, and the same random numbers. So nothing
    that the run changes in place lasts, and two runs at the same point are the same run.

    origin: name -> float64 copy of each tensor to differentiate by. hooked_late: those whose ``.grad`` has hooks that
    run after autograd. was_compiled: see `state.compiled`. is_chosen: what to differentiate by was named. complex:
    names of the tensors that require a gradient and cannot be moved. passes: runs made so far.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        inputs: Any,
        kwargs: Mapping[str, Any],
        wrt: Sequence[Tensor | str] | None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.function, self.dtype = eager(function), dtype
        if not callable(self.function):
            raise TypeError(f"function is a {type(function).__name__}: expected an nn.Module or another callable")
        args = tuple(inputs) if isinstance(inputs, (list, tuple)) else (inputs,)
        # most programs are called with tensors: then there is nothing to take apart, nor to put together in each run
        is_flat = not kwargs and all(isinstance(a, Tensor) for a in args)
        self._leaves: list[Any] = list(args)
        self._structure: Any = None
        if not is_flat:
            self._leaves, self._structure = tree_flatten((args, dict(kwargs)))
        roots = modules_of(self.function)
        self.modules = list({id(m): m for root in roots.values() for m in root.modules()}.values())
        self.was_compiled = compiled(function, self.modules)
        for module in self.modules:
            if isinstance(module, torch.jit.ScriptModule):
                raise TypeError(f"{type(module).__name__} is a ScriptModule: give the nn.Module that it was made from")

        # only what is replaced by a copy in each run: not what a dataclass among the inputs holds
        replaced = {id(leaf) for leaf in self._leaves}
        found = {**dict(named_tensors(args, "inputs")), **dict(named_tensors(kwargs, "kwargs"))}
        available = {name: tensor for name, tensor in found.items() if id(tensor) in replaced}
        named = _parameters(roots)
        self.is_chosen = wrt is not None
        self.complex = [name for name, t in {**available, **named}.items() if t.is_complex() and t.requires_grad]
        chosen = _choose(available, named, wrt)
        self.hooked_late = [n for n, t in chosen.items() if getattr(t, "_post_accumulate_grad_hooks", None)]
        if not chosen:
            raise ValueError(
                f"nothing to differentiate by: no floating tensor among {', '.join(available) or 'no input'}"
            )
        self._names: dict[int, str] = {}
        for name, tensor in chosen.items():
            self._names.setdefault(id(tensor), name)  # a tensor given twice is one
        # what is run at, exactly: moved in float64, and rounded once
        self.origin = {
            name: chosen[name].detach().to(dtype).to(torch.float64, copy=True) for name in self._names.values()
        }
        self._attributes, self._randomness = Attributes(self.modules), Randomness(self.modules)
        self.passes = 0

    @contextmanager
    def at(self, direction: Point | None = None, t: float = 0.0) -> Iterator[tuple[dict[str, Tensor], Call]]:
        """Move the origin by t · direction; yield the new leaves (name -> tensor) and the call of the program.

        The call takes a context for the program alone, and returns the outputs. Whatever needs the program's own state,
        backward through a checkpoint among it, belongs into the context of `at`. The default dtype has to be the
        subject's, and is so again afterwards.
        """
        leaves: dict[str, Tensor] = {}
        dtype = self.dtype
        twins: dict[int, Tensor] = {}
        memories: dict[tuple[int, torch.dtype], Tensor] = {}

        def copy(tensor: Tensor) -> Tensor:
            if id(tensor) not in twins:
                name = self._names.get(id(tensor))
                if name is None:
                    value = self._constant(tensor, memories)
                elif direction is not None and name in direction:
                    value = torch.add(self.origin[name], direction[name], alpha=t)
                else:
                    value = self.origin[name].clone()
                if value.dtype is not dtype and name is not None:  # to ask `to` for nothing takes time, too
                    value = value.to(dtype)
                twins[id(tensor)] = twin = _in_place_of(tensor, value, name is not None)
                if name is not None:
                    leaves[name] = twin
            return twins[id(tensor)]

        self._attributes.replace(copy)
        inputs = [copy(x) if isinstance(x, Tensor) else x for x in self._leaves]

        def call(within: AbstractContextManager[None]) -> Outputs:
            self.passes += 1
            # a leaf may not be changed in place, and in training an input is none
            given = [x.clone() if isinstance(x, Tensor) and x.requires_grad else x for x in inputs]
            args, kwargs = (given, {}) if self._structure is None else tree_unflatten(given, self._structure)
            with within:
                returned = self.function(*args, **kwargs)
            found = dict(named_tensors(returned, "output"))
            return {
                name: torch.view_as_real(tensor) if tensor.is_complex() else tensor
                for name, tensor in found.items()
                if tensor.is_floating_point() or tensor.is_complex()
            }

        try:
            with torch.enable_grad():
                yield leaves, call
        finally:
            set_default_dtype(dtype)
            self._attributes.put_back()
            self._randomness.put_back()

    def _constant(self, tensor: Tensor, memories: dict[tuple[int, torch.dtype], Tensor]) -> Tensor:
        """Return a copy of what is not differentiated by; of two names for the same memory, two names for its copy."""
        shared = tensor.layout is torch.strided and tensor.untyped_storage().data_ptr() in self._attributes.shared
        dtype = self.dtype if tensor.is_floating_point() else tensor.dtype
        if not shared or tensor.requires_grad:
            return tensor.detach().to(dtype, copy=True)
        storage = tensor.untyped_storage()
        key = storage.data_ptr(), tensor.dtype
        if key not in memories:
            size = storage.nbytes() // tensor.element_size()
            memories[key] = tensor.new_empty(0).set_(storage, 0, (size,), (1,)).to(dtype, copy=True)
        # by `data`: whether a write is seen by autograd is not known of the original, and looked for by its effect
        return memories[key].as_strided(tensor.size(), tensor.stride(), tensor.storage_offset()).data


def _parameters(roots: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Return the parameters by name, and behind them what requires a gradient and is no parameter."""
    named: dict[str, Tensor] = {}
    for prefix, root in roots.items():
        found: list[tuple[str, Tensor]] = []
        others: list[tuple[str, Tensor]] = []
        # one walk for both: `named_parameters` takes one of its own, and this is the time of a small program
        for path, module in root.named_modules():
            name = f"{prefix}.{path}." if path else f"{prefix}."
            found += [(name + key, each) for key, each in module._parameters.items() if each is not None]
            others += _leaves(module, name)
        for name, parameter in (*found, *others):
            name = ".".join(part for part in name.split(".") if part and part != "_orig_mod")
            if not any(parameter is known for known in named.values()):
                named[name] = parameter
    return named


def _leaves(module: nn.Module, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Yield what requires a gradient and is no parameter: a buffer, or a tensor that was made an attribute."""
    for key, value in (*vars(module)["_buffers"].items(), *vars(module).items()):
        if value is None or isinstance(value, PLAIN) or (isinstance(value, (dict, list, tuple)) and not value):
            continue  # most are
        if key in Attributes.TABLES:
            continue
        for name, tensor in named_tensors(value, prefix + key):
            if tensor.requires_grad and tensor.is_leaf:
                yield name, tensor


def _choose(
    inputs: Mapping[str, Tensor], parameters: Mapping[str, Tensor], wrt: Sequence[Tensor | str] | None
) -> dict[str, Tensor]:
    everything = {**inputs, **parameters}
    if wrt is None:
        trained = {name: p for name, p in parameters.items() if p.requires_grad}
        return {name: t for name, t in {**inputs, **trained}.items() if t.is_floating_point()}
    chosen: dict[str, Tensor] = {}
    for k, item in enumerate([wrt] if isinstance(wrt, (str, Tensor)) else wrt):
        names = [n for n, t in everything.items() if n == item or t is item]
        if not names:
            what = repr(item) if isinstance(item, str) else f"a tensor of shape {tuple(item.shape)}"
            raise ValueError(f"wrt[{k}] is {what}, and is none of {', '.join(everything)}: pass the tensor as an input")
        if not everything[names[0]].is_floating_point():
            raise TypeError(f"wrt[{k}], {names[0]}, is {everything[names[0]].dtype}: expected a real floating dtype")
        chosen[names[0]] = everything[names[0]]
    return chosen


def _in_place_of(tensor: Tensor, value: Tensor, leaf: bool) -> Tensor:
    """Return `value` with all else that `tensor` is: a parameter or not, its hooks, its attributes."""
    live, kind = leaf or tensor.requires_grad, type(tensor)
    # what a parameter is, torch asks in Python, and there are several in each run
    if kind is nn.Parameter or (kind is not Tensor and isinstance(tensor, nn.Parameter)):
        value = nn.Parameter(value, requires_grad=live)
    else:
        value.requires_grad_(live)
    if live and tensor.is_leaf:  # a result's hooks belong to the graph that it is of
        for hook in (tensor._backward_hooks or {}).values():
            value.register_hook(hook)  # type: ignore[no-untyped-call]
    vars(value).update(vars(tensor))
    return value
