"""Following a program: which layer of torch sees which kind of stop.

- `TorchDispatchMode` sits below autograd and sees every ATen operation, whoever called it: the author's ``detach``, one
  inside ``F.gumbel_softmax`` or einops, the operations of a ``no_grad`` or ``inference_mode`` region, ``argmin``,
  ``item``. A `TorchFunctionMode` alone would not do: it is switched off inside ``torch.nn.functional``.
- `TorchFunctionMode` sees what never reaches the dispatcher: ``Tensor.data``, ``detach_``, ``tolist``.
- The autograd graph (graph.py) shows a custom ``autograd.Function``, which neither of them can.

One rule for all of them: *a stop is an operation that takes a tensor that carries a gradient and returns one that does
not*. Everything behind a stop is computed from constants, and comes out the same by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from vq_reference.testing.derivatives.ops import (
    Op,
    called_from_autograd,
    describe,
    has_its_own_derivative,
    is_idle,
    padding,
    tensors,
    written_tensors,
)
from vq_reference.testing.derivatives.tape import Tape


@contextmanager
def following(tape: Tape) -> Iterator[None]:
    """Record the operations of this context on `tape`, or replay them from it once it is rewound."""
    with _Attributes(tape), _Operations(tape):
        yield


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, tape: Tape) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tape = tape

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here; torch would go through its compiler to find that out, each time

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        op = describe(func)
        if self.tape.paused or (op.detaches and not called_from_autograd()):
            return func(*args, **kwargs)

        def compute() -> Any:
            return func(*args, **kwargs)

        if self.tape.replaying:
            return self.tape.replayed(op.name, compute, lambda: written_tensors(op, args, kwargs))
        live = [tensor for tensor in tensors((*args, *kwargs.values())) if tensor.requires_grad]
        written = written_tensors(op, args, kwargs)
        carries = bool(live) and torch.is_grad_enabled()
        if not carries and any(tensor.requires_grad for tensor in written):
            if not is_idle(op, func, args, kwargs):
                what = f"{op.name} changes a tensor in place that carries a gradient, in a no_grad region"
                self.tape.suspects += [(what, tensor) for tensor in written if tensor.requires_grad]
            return self.tape.computed(op.name, compute, indices=False)
        if carries and has_its_own_derivative(op, args):
            self.tape.obstacle(f"{op.name} has a derivative of its own, which is not that of what it computes")
        if not is_idle(op, func, args, kwargs):
            self._refuse_unseen(op, live, written)
        into_a_constant = self.tape.overwrites_a_stopped_value(written) or any(not _is_real(t) for t in written)
        if carries and into_a_constant:
            return self.tape.stopped(op.name, compute, written, [])
        if carries and not op.detaches and not op.staircase and kwargs.get("rounding_mode") is None:
            result = self.tape.computed(op.name, compute, indices=True, constant=padding(op, args))
            self._note_coarser(live, result)
            return result
        if live or op.draws:
            return self.tape.stopped(op.name, compute, written, live)
        result = self.tape.computed(op.name, compute, indices=False)
        if op.detaches:
            self.tape.alias(result)
        return result

    def _refuse_unseen(self, op: Op, live: list[Tensor], written: list[Tensor]) -> None:
        if self.tape.uses_an_overwritten_value(live):
            self.tape.obstacle(f"{op.name} reads a live value by the second name (data, detach) of a constant")
        for tensor in written:
            if self.tape.shares_a_stopped_value(tensor):
                self.tape.obstacle(f"{op.name} writes in place into memory that a stopped and a live tensor share")

    def _note_coarser(self, live: list[Tensor], result: Any) -> None:
        finest = min(torch.finfo(t.dtype).eps for t in live)
        for tensor in tensors(result if isinstance(result, (list, tuple)) else (result,)):
            if tensor.is_floating_point() and torch.finfo(tensor.dtype).eps > finest:
                self.tape.coarse.append(tensor)


def _is_real(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


_READ_DATA = torch.Tensor.data.__get__  # type: ignore[attr-defined]
_WRITE_DATA = torch.Tensor.data.__set__  # type: ignore[attr-defined]
_SWITCHES = (Tensor.requires_grad_, torch.Tensor.requires_grad.__set__)  # type: ignore[attr-defined]
_WATCHED = frozenset((_READ_DATA, _WRITE_DATA, Tensor.tolist, Tensor.detach_, *_SWITCHES))


class _Attributes(TorchFunctionMode):
    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self.tape = tape

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch._C._are_functorch_transforms_active():
            self.tape.obstacle("a torch.func transform (vmap, grad, jvp) runs inside")
        if func not in _WATCHED:
            return func(*args, **kwargs)

        def compute() -> Any:
            return func(*args, **kwargs)

        subject = args[0]
        if not subject.requires_grad:
            result = compute()
            if func == _READ_DATA:
                self.tape.alias(result)
            return result
        if func in _SWITCHES:
            on = args[1] if len(args) > 1 else kwargs.get("requires_grad", True)
            if not on and not self.tape.replaying:
                self.tape.suspects.append(("requires_grad is switched off within the program", subject))
            return compute()
        if func == _WRITE_DATA:
            self.tape.obstacle("Tensor.data is assigned on a tensor that carries a gradient")
            return compute()
        if func is Tensor.detach_:
            compute()  # first, so that the recorded value may be written into it
            return self._stopped("Tensor.detach_", lambda: subject, [subject], [])
        return self._stopped("Tensor.data" if func == _READ_DATA else "Tensor.tolist", compute, [], [subject])

    def _stopped(self, name: str, compute: Callable[[], Any], written: list[Tensor], sources: list[Tensor]) -> Any:
        if self.tape.replaying:
            return self.tape.unfollowed(self.tape.replayed)(name, compute, lambda: written)
        return self.tape.unfollowed(self.tape.stopped)(name, compute, written, sources)
