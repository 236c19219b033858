"""The tape: what every stopped value was at the base point, and the order of the operations around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten


class DivergedError(Exception):
    """The replayed run called other operations than the recorded one: it is not the same function any more."""


@dataclass
class Event:
    """One operation of the recorded run.

    name: the operation. held: position among its results -> the value to hand back on replay; empty for an operation
    that is simply computed again. structure: of the results, where all of them are held and nothing is left to compute.
    constant: where the one result is held in part, and its values there.
    written: what the arguments that a stopping operation changed in place were after it.
    """

    name: str
    held: dict[int, Any] = field(default_factory=dict)
    structure: Any = None
    constant: tuple[Tensor, Tensor] | None = None
    written: list[Tensor] = field(default_factory=list)

    def results(self) -> Any:
        """Return all results, where all are held."""
        return tree_unflatten([copy(value) for value in self.held.values()], self.structure)


class Tape:
    """Records a run of a program, then replays its stopped values in runs at other points.

    obstacles: what was met that cannot be followed, in words. coarse: tensors that were rounded to a coarser dtype
    while they carried a gradient. suspects: (what, tensor), what cannot be followed where the tensor is on the way of a
    gradient in question. moved: operations whose index came out differently on replay.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.obstacles: list[str] = []
        self.coarse: list[Tensor] = []
        self.suspects: list[tuple[str, Tensor]] = []
        self.moved: set[str] = set()
        self.replaying = False
        # set while the tape itself computes above the dispatcher: those operations are not the program's
        self.paused = False
        self._position = 0
        # Memory by address -> the storage, kept so that no address is used again within the run.
        # shared: of a live tensor and a stopped alias of it. aliased: of two stopped tensors, by `data` or `detach`.
        # overwritten: aliased memory that a live value was written into, which only one of the aliases knows.
        self._shared: dict[int, Any] = {}
        self._aliased: dict[int, Any] = {}
        self._overwritten: dict[int, Any] = {}

    @property
    def stops(self) -> list[str]:
        """Names of the operations that stopped a gradient, in order."""
        names = (event.name for event in self.events if event.held or event.written or event.constant)
        return [name.removeprefix("aten.").removesuffix(".default") for name in names]

    def rewind(self) -> None:
        """Replay from the start."""
        self.replaying, self._position = True, 0
        for memory in (self._shared, self._aliased, self._overwritten):
            memory.clear()

    def finish(self) -> None:
        """Raise DivergedError when the replayed run ended early."""
        if self._position != len(self.events):
            raise DivergedError(f"it ended before {self.events[self._position].name} (operation {self._position})")

    def obstacle(self, text: str) -> None:
        """Note, once, something that cannot be followed."""
        if text not in self.obstacles:
            self.obstacles.append(text)

    def computed(self, name: str, compute: Callable[[], Any], indices: bool, constant: Tensor | None = None) -> Any:
        """Record an operation that is computed again on replay, apart from its `indices`.

        Those are the results that are no real tensors: integers, truth values, Python numbers. They are held.
        constant: where the entries of a result, along its first dimensions, are held as well.
        """
        result = compute()
        event = Event(name)
        if indices:
            leaves, structure = tree_flatten(result)
            event.held = {k: copy(leaf) for k, leaf in enumerate(leaves) if _is_choice(leaf)}
            event.structure = structure if len(event.held) == len(leaves) > 0 else None
        if constant is not None:
            event.constant = constant, copy(result[constant])
        self.events.append(event)
        return result

    def stopped(self, name: str, compute: Callable[[], Any], written: list[Tensor], sources: list[Tensor]) -> Any:
        """Record an operation whose results are constants: handed back on replay.

        written: the arguments that it changes in place. sources: its arguments that carry a gradient.
        """
        result = compute()
        leaves, structure = tree_flatten(result)
        self._watch(leaves, sources)
        if written:
            self.events.append(Event(name, written=[copy(tensor) for tensor in written]))
        else:
            self.events.append(Event(name, {k: copy(leaf) for k, leaf in enumerate(leaves)}, structure))
        return result

    def replayed(self, name: str, compute: Callable[[], Any], written: Callable[[], list[Tensor]]) -> Any:
        """Do again what was recorded. `written` is asked only where a stopping operation changed arguments in place."""
        event = self._next(name)
        if event.structure is not None:
            return event.results()
        result = compute()
        if event.written:
            for tensor, value in zip(written(), event.written, strict=True):
                tensor.copy_(value)
        if event.constant is not None:
            result[event.constant[0]] = event.constant[1]
        if not event.held:
            return result
        leaves, structure = tree_flatten(result)
        for k, value in event.held.items():
            if not torch.equal(leaves[k], value):
                self.moved.add(name)
            leaves[k] = copy(value)
        return tree_unflatten(leaves, structure)

    def shares_a_stopped_value(self, tensor: Tensor) -> bool:
        """Whether writing into `tensor` would change a value through a stop, where autograd does not see it."""
        return bool(self._shared) and _storage(tensor) in self._shared

    def unfollowed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose operations are not the program's."""

        def run(*args: Any, **kwargs: Any) -> Any:
            self.paused = True
            try:
                return function(*args, **kwargs)
            finally:
                self.paused = False

        return run

    def alias(self, tensor: Tensor) -> None:
        """Note that `tensor` is a second name, by ``data`` or ``detach``, for the memory of a stopped tensor."""
        self._aliased[_storage(tensor)] = _memory(tensor)

    def overwrites_a_stopped_value(self, written: list[Tensor]) -> bool:
        """Whether a live value is being written into a stopped tensor by its second name, ``buffer.data.copy_(live)``.

        Then the buffer, by its first name, stays a constant to autograd.
        """
        hit = [t for t in written if self._aliased and not t.requires_grad and _storage(t) in self._aliased]
        self._overwritten.update((_storage(t), _memory(t)) for t in hit)
        return bool(hit)

    def uses_an_overwritten_value(self, live: list[Tensor]) -> bool:
        """Whether the second name is then used as a live tensor: a constant by one name and not by the other."""
        return bool(self._overwritten) and any(_storage(tensor) in self._overwritten for tensor in live)

    def _next(self, name: str) -> Event:
        if self._position == len(self.events):
            raise DivergedError(f"it goes on with {name} where the recorded run ended")
        event = self.events[self._position]
        if event.name != name:
            raise DivergedError(f"operation {self._position} is {name}, and was {event.name}")
        self._position += 1
        return event

    def _watch(self, results: list[Any], sources: list[Tensor]) -> None:
        of_sources = {_storage(tensor) for tensor in sources}
        for leaf in results:
            if isinstance(leaf, Tensor) and _storage(leaf) in of_sources:
                self._shared[_storage(leaf)] = _memory(leaf)


def copy(value: Any) -> Any:
    """Return a tensor with the same values and strides in memory of its own; anything else is returned as it is.

    The strides matter: a contiguous copy of a strided view would make a later ``contiguous()`` do nothing, and the
    replayed run would call other operations than the recorded one.
    """
    if not isinstance(value, Tensor):
        return value
    twin = value.detach().clone()
    if value.layout is not torch.strided or twin.stride() == value.stride():
        return twin
    storage = value.untyped_storage().clone()  # type: ignore[no-untyped-call]
    return twin.new_empty(0).set_(storage, value.storage_offset(), value.size(), value.stride())


def _is_choice(leaf: Any) -> bool:
    if isinstance(leaf, Tensor):
        return not (leaf.is_floating_point() or leaf.is_complex())
    return isinstance(leaf, (bool, int, float, complex))


def _memory(tensor: Tensor) -> Any:
    return tensor.untyped_storage() if tensor.layout is torch.strided else tensor


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else id(tensor)
