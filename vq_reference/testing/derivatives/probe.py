"""Probes: directions to move along, what to measure of the outputs, and autograd's answer for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vq_reference.testing.derivatives.sides import entries, vector_products
from vq_reference.testing.derivatives.step import Floats
from vq_reference.testing.derivatives.subject import Outputs, Point, Program


@dataclass(frozen=True)
class Probe:
    """One direction, and some numbers measured of the outputs.

    direction: tensor name -> what to add for t = 1. unit: the slope that counts as 1 when results are reported.
    measure: outputs -> the numbers. size: outputs -> the sums of absolute terms in them. names: what each is called.
    by: the entry that is moved, where it is one. owners: the output that each is of.
    autograd: their slopes along `direction`. pull: Σ|∂/∂x · direction|. reach: Σ|∂/∂x · x|.
    cotangents: output name and weights of each number; empty where the numbers are the entries themselves.
    """

    direction: Point
    measure: Callable[[Outputs], Floats]
    size: Callable[[Outputs], Floats]
    names: list[str]
    owners: list[str]
    autograd: Floats
    pull: Floats
    reach: Floats
    cotangents: tuple[tuple[str, Tensor], ...] = ()
    unit: float = 1.0
    by: str = ""

    def name(self, k: int) -> str:
        """Return what the k-th derivative is called."""
        return f"d {self.names[k]} / d {self.by}" if self.by else self.names[k]


@dataclass(frozen=True)
class Probes:
    """The probes of a check.

    outputs: those of the program at the origin that carry a gradient. constant: the names of those that do not.
    shares: output -> tensor -> Σ|∂/∂x · direction| by it, over the size of what was measured of the output.
    """

    probes: list[Probe]
    outputs: Outputs
    constant: list[str]
    shares: dict[str, dict[str, float]]

    def without(self, rounding: float) -> dict[str, tuple[str, ...]]:
        """Return output -> the tensors that it sends no gradient to, or none but what a relative error makes."""
        tensors = tuple(next(iter(self.shares.values())))
        found = {output: tuple(t for t in tensors if share[t] <= rounding) for output, share in self.shares.items()}
        return {**found, **dict.fromkeys(self.constant, tensors)}


def length(tensor: Tensor) -> float:
    """Return the root mean square: what a change by 1 is relative to. 1 for a tensor of zeros or of nothing.

    >>> length(torch.tensor([3.0, -4.0, 0.0, 0.0])), length(torch.zeros(2))
    (2.5, 1.0)
    """
    root = float(torch.linalg.vector_norm(tensor)) / max(tensor.numel(), 1) ** 0.5
    return root if root > 0 and np.isfinite(root) else 1.0


def along(x: Tensor, k: int) -> tuple[Tensor, float]:
    """Return the direction of the k-th coordinate of `x`, as long as `length(x)`, and that length."""
    direction, unit = torch.zeros(x.shape, dtype=x.dtype, device=x.device), length(x)
    direction.view(-1)[k] = unit
    return direction, unit


def directional(subject: Program, directions: int, seed: int) -> Probes:
    """Probes random directions through all tensors at once, and a random weighting of each output.

    A single wrong entry of the Jacobian shows in a random direction with probability one.
    """
    draw, probes = _entries_of_size_one(seed), []
    shares: dict[str, dict[str, float]] = {}
    lengths = {name: length(x) for name, x in subject.origin.items()}
    # all tensors as one: several operations on each take longer than the backward of a small program
    point = _joined(subject.origin, subject.origin).nan_to_num(0, 0, 0)  # what is infinite is not rounded
    parts_of = [x.numel() for x in subject.origin.values()]
    with vector_products(subject) as (live, constant, product):
        for k in range(directions):
            move = draw(point)
            parts = torch.split(move, parts_of)
            direction = {
                name: part.view(x.shape).mul_(lengths[name]).to(x.device)
                for (name, x), part in zip(subject.origin.items(), parts, strict=True)
            }
            # a single number needs no weight, and is easier to read without
            weights = {name: _rounded(draw(y), y) if y.numel() > 1 else torch.ones_like(y) for name, y in live.items()}
            shares, sums = shares or {name: {} for name in live}, np.zeros((3, len(live)))
            for row, name in enumerate(live):
                gradients = product(name, weights[name].to(live[name].dtype))
                g = _joined(gradients, subject.origin)
                moved, still = g * move, g * point
                sums[:, row] = float(moved.sum()), _absolute_sum(moved), _absolute_sum(still)
                of_output = _absolute_sum(weights[name] * live[name].detach())
                for tensor, part in zip(lengths, torch.split(moved, parts_of), strict=True):
                    share = _share(float(part.abs().sum()), of_output)
                    shares[name][tensor] = max(share, shares[name].get(tensor, 0.0))
            cotangents = tuple(weights.items())
            names = [f"{name} along direction {k + 1}" for name in live]
            slopes, pull, reach = sums
            measure, size = _weighted(cotangents), _sizes(cotangents)
            probes.append(Probe(direction, measure, size, names, list(live), slopes, pull, reach, cotangents))
        outputs = {name: y.detach() for name, y in live.items()}
        return Probes(probes, outputs, constant, shares)


def every_entry(subject: Program, seed: int) -> Probes:
    """Probes each coordinate of each tensor on its own, and each entry of each output: the full Jacobian."""
    draw = _entries_of_size_one(seed)
    with vector_products(subject) as (live, constant, product):
        outputs = {name: y.detach() for name, y in live.items()}
        blocks: dict[str, list[Tensor]] = {name: [] for name in subject.origin}
        for name, y in live.items():
            for k, weight in enumerate(draw(y).flatten().tolist()):
                # weighted, since a backward that is not linear may be right at a weight of 1
                one = _one_entry(y, k, weight)
                for tensor, g in product(name, one).items():
                    blocks[tensor].append(g.to(torch.float64).flatten() / weight)
    names = [f"{name}{coordinate(k, y.shape)}" for name, y in outputs.items() for k in range(y.numel())]
    owners = [name for name, y in outputs.items() for _ in range(y.numel())]
    rows = {name: [k for k, owner in enumerate(owners) if owner == name] for name in outputs}
    jacobians = {name: torch.stack(block).cpu().numpy() for name, block in blocks.items() if block}
    shares = {
        output: {
            name: _share(float(np.abs(j[rows[output]]).sum()) * length(subject.origin[name]), float(y.abs().sum()))
            for name, j in jacobians.items()
        }
        for output, y in outputs.items()
    }
    flat = {name: x.flatten().cpu().nan_to_num(0, 0, 0).numpy() for name, x in subject.origin.items()}
    sizes = {name: np.abs(np.nan_to_num(jacobian)) for name, jacobian in jacobians.items()}
    pull = sum((j.sum(axis=1) * length(subject.origin[name]) for name, j in sizes.items()), np.zeros(1))
    reach = sum((j @ np.abs(flat[name]) for name, j in sizes.items()), np.zeros(1))
    probes = []
    for tensor, jacobian in jacobians.items():
        x = subject.origin[tensor]
        for k in range(x.numel()):
            direction, unit = along(x, k)
            slopes, by = unit * jacobian[:, k], f"{tensor}{coordinate(k, x.shape)}"
            probes.append(
                Probe({tensor: direction}, entries, _absolute, names, owners, slopes, pull, reach, unit=unit, by=by)
            )
    return Probes(probes, outputs, constant, shares)


def single(subject: Program, output: str, weight: Tensor, tensor: str, k: int, gradient: Tensor) -> Probe:
    """Probes one entry of the Jacobian: the k-th of `tensor`, and the one place of `output` where `weight` is not zero.

    gradient: autograd's, of the output with that weight by the whole tensor.
    """
    x = subject.origin[tensor]
    direction, moved = along(x, k)
    place = int(weight.abs().argmax())
    of, by = f"{output}{coordinate(place, weight.shape)}", f"{tensor}{coordinate(k, x.shape)}"
    slope = np.array([float(gradient.flatten()[k]) * moved])
    finite = gradient.nan_to_num().abs()
    pull, reach = np.array([float(finite.sum()) * moved]), np.array([float((finite * x.abs()).sum())])
    cotangents = ((output, weight),)
    unit = moved * float(weight.flatten()[place])
    measure, size = _weighted(cotangents), _sizes(cotangents)
    return Probe({tensor: direction}, measure, size, [of], [output], slope, pull, reach, unit=unit, by=by)


def coordinate(k: int, shape: torch.Size) -> str:
    """Write the k-th entry of a tensor as an index, nothing for a scalar.

    >>> coordinate(5, torch.Size((2, 3)))
    '[1, 2]'
    """
    return str([int(i) for i in np.unravel_index(k, tuple(shape))]) if shape else ""


def _entries_of_size_one(seed: int) -> Callable[[Tensor], Tensor]:
    """Return what draws entries of root mean square 1: uniform, which takes a third of the time of normal ones."""
    generator, end = torch.Generator().manual_seed(seed), 3**0.5

    def draw(like: Tensor) -> Tensor:
        entries = torch.empty(like.shape, dtype=torch.float64).uniform_(-end, end, generator=generator)
        return entries.to(like.device)

    return draw


def _rounded(weights: Tensor, like: Tensor) -> Tensor:
    """Return weights that autograd, which takes them in the output's dtype, and the differences have in common."""
    return weights.to(like.dtype).to(weights.dtype)


def _joined(tensors: Point, order: Iterable[str]) -> Tensor:
    """Return all entries of the tensors as one vector, on the device of the first."""
    flat = [tensors[name].flatten() for name in order]
    return torch.cat([part.to(flat[0].device) for part in flat])


def _absolute_sum(terms: Tensor) -> float:
    total = float(torch.linalg.vector_norm(terms, 1))
    return total if np.isfinite(total) else float(torch.linalg.vector_norm(terms.nan_to_num(), 1))


def _share(pull: float, size: float) -> float:
    return pull / size if size else np.inf if pull else 0.0


def _one_entry(like: Tensor, k: int, weight: float) -> Tensor:
    one = torch.zeros(like.numel(), dtype=like.dtype, device=like.device)
    one[k] = weight
    return one.reshape(like.shape)


def _absolute(outputs: Outputs) -> Floats:
    return np.abs(entries(outputs))


def _weighted(cotangents: tuple[tuple[str, Tensor], ...]) -> Callable[[Outputs], Floats]:
    flat = [(name, weight.flatten()) for name, weight in cotangents]
    return lambda outputs: np.array([float(weight.dot(outputs[name].flatten().to(weight))) for name, weight in flat])


def _sizes(cotangents: tuple[tuple[str, Tensor], ...]) -> Callable[[Outputs], Floats]:
    return lambda outputs: np.array([float((weight * outputs[name]).abs().sum()) for name, weight in cotangents])
