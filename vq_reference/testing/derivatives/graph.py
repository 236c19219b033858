"""What the autograd graph shows of a run, and no mode can see."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

LEAF = torch.zeros((), requires_grad=True)


def next_number() -> int:
    """Return the number that this thread's next node of the graph has: 0 where torch does not tell."""
    node: Any = LEAF.clone().grad_fn
    return int(node._sequence_nr()) + 1 if hasattr(node, "_sequence_nr") else 0


class Graph:
    """The nodes between some outputs and the leaves that they are differentiated by.

    Nodes that lead to none of the leaves are left out: what happens there is no part of the derivative in question.

    other_leaves: the tensors with a gradient that are behind the outputs as well.
    """

    def __init__(self, outputs: Iterable[Tensor], leaves: Iterable[Tensor]) -> None:
        roots = [tensor.grad_fn for tensor in outputs if tensor.grad_fn is not None]
        users: dict[Any, list[Any]] = {}
        ends: list[Any] = []
        identities = {id(leaf) for leaf in leaves}
        self.other_leaves: list[Tensor] = []
        pending, seen = list(roots), set(roots)
        while pending:
            node = pending.pop()
            variable = getattr(node, "variable", None)
            if id(variable) in identities:
                ends.append(node)
            elif variable is not None:
                self.other_leaves.append(variable)
            for parent, _ in node.next_functions:
                if parent is None:
                    continue
                users.setdefault(parent, []).append(node)
                if parent not in seen:
                    seen.add(parent)
                    pending.append(parent)
        self.nodes: set[Any] = set(ends)
        pending = ends
        while pending:
            for user in users.get(pending.pop(), []):
                if user not in self.nodes:
                    self.nodes.add(user)
                    pending.append(user)

    def custom_functions(self) -> list[str]:
        """Names of the custom ``autograd.Function`` classes on the way, Python's, C++'s and TorchScript's, sorted."""
        names = set()
        for node in self.nodes:
            if isinstance(node, BackwardCFunction):
                names.add(node._forward_cls.__name__)  # type: ignore[attr-defined]
            elif node.name().startswith(("torch::autograd::CppNode", "torch::jit::")):
                names.add(node.name())
        return sorted(names)

    def made_elsewhere(self, first: int, last: int) -> bool:
        """Whether a node was made outside of this thread, which made those from number `first` to `last`.

        Each thread counts its own nodes. Where torch does not tell the number (2.0), there is nothing to be seen.
        """
        numbers = (node._sequence_nr() for node in self.nodes if node.next_functions and hasattr(node, "_sequence_nr"))
        return any(not first <= number <= last for number in numbers)

    def __contains__(self, tensor: Tensor) -> bool:
        return tensor.grad_fn in self.nodes
