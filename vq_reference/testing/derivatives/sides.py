"""The two sides of a comparison: autograd as it runs, and the function whose stopped values are constants."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from copy import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules._functions import BackwardHookFunction
from torch.utils import checkpoint

from vq_reference.testing.derivatives.graph import Graph, next_number
from vq_reference.testing.derivatives.modes import following
from vq_reference.testing.derivatives.state import standing_in
from vq_reference.testing.derivatives.step import Floats, Slope, slope
from vq_reference.testing.derivatives.subject import Outputs, Point, Program
from vq_reference.testing.derivatives.tape import Tape

VectorProduct = Callable[[str, Tensor], dict[str, Tensor]]

# torch's own custom functions: a reentrant checkpoint, and the identity that a full backward hook hangs on
_CHECKPOINT, _HOOK = checkpoint.CheckpointFunction, BackwardHookFunction


@contextmanager
def vector_products(subject: Program) -> Iterator[tuple[Outputs, list[str], VectorProduct]]:
    """Run the program as it is; yield the outputs that carry a gradient, the names of the others, and J'g by autograd.

    That is a function of an output's name and of g, and returns a tensor for each leaf.
    """
    with subject.at() as (leaves, call):
        found = call(nullcontext())
        outputs = {name: tensor for name, tensor in found.items() if tensor.requires_grad}
        constant = [name for name in found if name not in outputs]
        for leaf in leaves.values():
            leaf.requires_grad_()  # the program may have switched it off

        def product(name: str, cotangent: Tensor) -> dict[str, Tensor]:
            output, tensors = outputs[name], list(leaves.values())
            grads: list[Tensor | None]
            try:
                grads = list(torch.autograd.grad(output, tensors, cotangent, retain_graph=True, allow_unused=True))
            except RuntimeError:
                # a reentrant checkpoint refuses torch.autograd.grad, and nothing but backward shows what it does
                if _CHECKPOINT.__name__ not in Graph([output], tensors).custom_functions():
                    raise
                for tensor in tensors:
                    tensor.grad = None
                output.backward(cotangent, retain_graph=True)  # type: ignore[no-untyped-call]
                grads = [tensor.grad for tensor in tensors]
            return {
                leaf: torch.zeros_like(tensor) if grad is None else grad.detach().to_dense()
                for (leaf, tensor), grad in zip(leaves.items(), grads, strict=True)
            }

        yield outputs, constant, product


class DeclaredFunction:
    """The program with each stopped value held at what it was at the origin: smooth where the program is a staircase.

    outputs: at the origin. tape: what was recorded there. coarsest: dtype that a gradient passes, and
    unit_roundoff of it. obstacles: why it cannot be followed; then no slope must be asked for.
    """

    def __init__(self, subject: Program, functions: Mapping[type, Callable[..., Any]]) -> None:
        self._subject = subject
        self.tape = Tape()
        self._functions = {
            _CHECKPOINT: lambda run, preserve_random_numbers, *args: run(*args),
            _HOOK: self.tape.unfollowed(_HOOK.apply),
            **functions,
        }
        with subject.at() as (leaves, call):
            first = next_number()
            with standing_in(self._functions):
                outputs = call(following(self.tape))
            last = next_number()
            live = {name: tensor for name, tensor in outputs.items() if tensor.requires_grad}
            graph = Graph(live.values(), leaves.values())
        self.outputs = {name: tensor.detach() for name, tensor in live.items()}
        self.obstacles = [
            f"custom autograd.Function {name} cannot be followed"
            for name in graph.custom_functions()
            if name != _HOOK.__name__
        ]
        self.obstacles += self.tape.obstacles
        # of another device, autograd computes in threads of its own, and those are followed
        on_cpu = all(tensor.device.type == "cpu" for tensor in (*leaves.values(), *live.values()))
        if on_cpu and graph.made_elsewhere(first, last):
            self.obstacles.append("a part of it runs in other threads, where nothing can be followed")
        if not subject.is_chosen:
            self.obstacles += [f"{name} is complex: only real tensors are moved" for name in subject.complex]
        ours = {id(leaf) for leaf in leaves.values()}
        on_the_way = [what for what, tensor in self.tape.suspects if id(tensor) in ours or tensor in graph]
        self.obstacles += dict.fromkeys(on_the_way)
        self.obstacles += [
            f"a tensor of shape {tuple(leaf.shape)} requires a gradient and is neither an input nor a known module's: "
            "pass it as an input, or name in wrt what to differentiate by"
            for leaf in self._strangers(graph.other_leaves)
        ]
        passed = [tensor.dtype for tensor in self.tape.coarse if tensor in graph]
        self.coarsest = max((subject.dtype, *passed), key=lambda dtype: torch.finfo(dtype).eps)
        self.unit_roundoff = torch.finfo(self.coarsest).eps / 2
        self.tape.coarse.clear()
        self.tape.suspects.clear()
        self._replays = True

    def _strangers(self, leaves: list[Tensor]) -> list[Tensor]:
        """Return those leaves that are not made anew in each run, as a penalty on a gradient makes them."""
        if self._subject.is_chosen or not leaves:
            return []
        with self._subject.at() as (own, call):
            live = [tensor for tensor in call(nullcontext()).values() if tensor.requires_grad]
            again = Graph(live, own.values()).other_leaves
        return [leaf for leaf in leaves if any(leaf is other for other in again)]

    @property
    def operations(self) -> int:
        """How many operations a value off the origin has behind it: the program's, and the two that move the point."""
        return len(self.tape.events) + 2

    def unfollowed(self) -> DeclaredFunction:
        """Return the function by runs that do not follow the tape: the program as it is, and faster.

        Without stops the two are one. But a program that does something else beside the origin is not noticed.
        """
        twin = copy(self)
        twin._replays = False
        return twin

    def _replay(self, direction: Point, t: float) -> Outputs:
        with self._subject.at(direction, t) as (_, call):
            if self._replays:
                self.tape.rewind()
                outputs = call(following(self.tape))
                self.tape.finish()
            else:
                outputs = call(nullcontext())
        return {name: outputs[name].detach() for name in self.outputs}

    def slope(
        self, direction: Point, measure: Callable[[Outputs], Floats], h: float, noise: Floats, here: Floats
    ) -> Slope:
        """Return the slope of ``measure(outputs)`` along `direction` in four runs; see step.py.

        here: what it is at the origin. Raises DivergedError when the program takes another way there.
        """
        with standing_in(self._functions):
            left, left_near, near, right = (measure(self._replay(direction, t)) for t in (-h, -h / 2, h / 2, h))
        return slope((left, left_near, here, near, right), h, noise)


def entries(outputs: Outputs) -> Floats:
    """Return all entries of all outputs as one vector."""
    return np.concatenate([tensor.detach().to("cpu", torch.float64).numpy().ravel() for tensor in outputs.values()])
