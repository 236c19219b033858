"""What follows from the choices that a residual stack made, what rounding does to it, and two replies that agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from vq_reference import loss
from vq_reference.arguments import Array
from vq_reference.residual import ResidualStack
from vq_reference.testing.interface.stateful import LastingLayer, Reply, Start
from vq_reference.testing.interface.subjects import NotApplicable
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds
from vq_reference.testing.laws.expected.nearest_per_head import decided
from vq_reference.vector_quantize import VectorQuantize


def stack_as_it_is(wanted: ResidualStack, layer: LastingLayer) -> ResidualStack:
    """Return the stack with the codes that it has now."""
    return replace(wanted, codes=tuple(layer.codes()))


def codes_at(stack: ResidualStack, indices: Array) -> list[Array]:
    """Return q_i, (N, D), of each layer; 0 where it was dropped."""
    return [np.where(indices[:, i, None] >= 0, codes[indices[:, i]], 0.0) for i, codes in enumerate(stack.codes)]


def where_codes_lie(
    state: Mapping[str, Array], codes: Sequence[Array]
) -> dict[str, dict[int, Callable[[Array], Array]]]:
    """Return name of a parameter → layer → what cuts that layer's codes, (K, D), from it, told by their values.

    Raises NotApplicable where the codes of a layer are no parameter, but made of some.
    """
    found: dict[str, dict[int, Callable[[Array], Array]]] = {}
    left = dict(enumerate(codes))
    for name, value in state.items():
        if value.ndim < 2:
            continue
        for table in np.ndindex(value.shape[:-2]):
            for cut in (partial(_table, at=table), partial(_turned, at=table)):
                layer = next((i for i, each in left.items() if np.array_equal(cut(value), each)), None)
                if layer is not None:
                    del left[layer]
                    found.setdefault(name, {})[layer] = cut
                    break
    if left:
        raise NotApplicable("its codes are no parameters, but made of some")
    return found


def _table(whole: Array, at: tuple[int, ...]) -> Array:
    return np.asarray(whole[at])


def _turned(whole: Array, at: tuple[int, ...]) -> Array:
    return _table(whole, at).T


def residuals(stack: ResidualStack, x: Array, indices: Array) -> list[Array]:
    """Return r_i, (N, D), as they follow from the choices that were made."""
    left, found = x, []
    for q in codes_at(stack, indices):
        found.append(left)
        left = left - q
    return found


def rounding(stack: ResidualStack, x: Array, indices: Array, u: float) -> Array:
    """Bound on what sums of codes, and residuals, are off by, (N, D): each of L steps rounds a number of that size."""
    size = np.abs(x) + sum(np.abs(q) for q in codes_at(stack, indices))
    return np.asarray(bounds.gamma(len(stack.codes) + 2, u) * size)


def losses(stack: ResidualStack, x: Array, indices: Array, u: float) -> Iterator[tuple[float, float]]:
    """Yield the loss of each layer, and what it may be off by."""
    off = rounding(stack, x, indices, u)
    scale = stack.commitment_weight * (stack.beta + (1 if stack.trained else 0))
    for r, q in zip(residuals(stack, x, indices), codes_at(stack, indices), strict=True):
        shift = scale * float(np.mean(2 * np.abs(r - q) * off + off**2))
        expected = loss.commitment_loss(r, q, 0.0, scale)
        yield expected, bounds.mean_square(r.size, u) * (expected + shift) + shift


def sure(stack: ResidualStack, x: Array, u: float) -> Array:
    """Return, (N,) bool, whether rounding can change the choice of no layer."""
    lefts, chosen, _ = stack.residuals(x)
    off = np.linalg.norm(rounding(stack, x, np.stack(chosen, axis=1), u), axis=1)
    answer = np.ones(len(x), bool)
    for left, codes in zip(lefts, stack.codes, strict=True):
        answer &= decided(VectorQuantize(codes[None]), left, u, off)
    return answer


def assert_same_stack_reply(
    stack: ResidualStack, x: Array, start: Start, first: Reply, second: Reply, u: float
) -> None:
    """Raise LawBroken unless two replies agree, up to twice what each may be off by.

    stack: with the codes that both chose among. Where rounding decides a choice, what depends on it is not compared.
    """
    certain = sure(stack, x, u)
    off = rounding(stack, x, first.indices, u)
    assert_within("output", second.output[certain], first.output[certain], 2 * off[certain])
    one, other = (np.stack(codes_at(stack, reply.indices), axis=1) for reply in (first, second))
    assert_within("selected codes", other[certain], one[certain], 0.0)
    if not certain.all():
        return
    most = np.array([bound for _, bound in losses(stack, x, first.indices, u)])
    assert_within("losses", second.losses, first.losses, 2 * most)
    at_x = gradient_bound(stack, x, start, first.indices, off, u)
    assert_within("gradient at x", _arrived(second, x), _arrived(first, x), 2 * at_x)


def gradient_bound(stack: ResidualStack, x: Array, start: Start, indices: Array, off: Array, u: float) -> Array:
    """Bound on what the gradient at x is off by, (N, D), at most that of the output for each layer and of each loss.

    Two roundings for each of L estimators, eight for a loss, and L sums of all. off: of the residuals.
    """
    layers = zip(residuals(stack, x, indices), codes_at(stack, indices), start.losses, strict=True)
    at_losses = [np.abs(loss.vjp(r, q, g, stack.beta, stack.commitment_weight)[0]) for r, q, g in layers]
    per_entry = 2 * stack.commitment_weight * stack.beta * sum(np.abs(start.losses)) / x.size
    absolute = len(stack.codes) * np.abs(start.output) + sum(at_losses)
    return np.asarray(bounds.gamma(8 + 3 * len(stack.codes), u) * absolute + per_entry * off)


def _arrived(reply: Reply, x: Array) -> Array:
    return np.zeros_like(x) if reply.reached is None or reply.reached.x is None else reply.reached.x
