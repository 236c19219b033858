"""Two replies to one question agree: what the laws of state and masks say, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from vq_reference.arguments import Array
from vq_reference.testing.interface.stateful import LastingLayer, Reply, Start, bare
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds_layer
from vq_reference.testing.laws.expected.nearest_per_head import decided
from vq_reference.vector_quantize import VectorQuantize


def as_it_is(wanted: VectorQuantize, layer: LastingLayer) -> VectorQuantize:
    """Return what the oracle says of the layer with the codes that it has now."""
    return replace(wanted, codes=layer.codes())


def assert_same_reply(
    oracle: VectorQuantize, x: Array, start: Start, first: Reply, second: Reply, u: float, mask: Array | None = None
) -> None:
    """Raise LawBroken unless two replies agree, up to twice what each may be off by.

    oracle: with the codes that both chose among. mask: (N,) bool, tokens that count. Where codes tie, either choice is
    right, and nothing that depends on it is compared.
    """
    present = np.ones(len(x), bool) if mask is None else mask
    sure = decided(oracle, x, u) & present
    error = bounds_layer.vector_quantize(oracle, x[present], start.output[present], start.losses[0], u)
    output = np.zeros_like(x)
    output[present] = error.output
    assert_within("selected code", _codes(oracle, second)[sure], _codes(oracle, first)[sure], 0.0)
    assert_within("output", second.output[sure], first.output[sure], 2 * output[sure])
    if not sure[present].all():
        return
    assert_within("ℓ", second.losses, first.losses, 2 * error.loss)
    if first.reached is None or second.reached is None:
        return
    at_x = np.zeros_like(x)
    at_x[present] = error.x
    one, other = (_arrived(reply.reached.x, x) for reply in (first, second) if reply.reached)
    assert_within("gradient at x", other[present], one[present], 2 * at_x[present])
    assert_same_names(first.reached.parameters, second.reached.parameters)
    for name, gradient in first.reached.parameters.items():
        found = second.reached.parameters[name]
        like = np.zeros(()) if gradient is None and found is None else gradient if found is None else found
        assert like is not None
        assert_within(f"gradient at {name}", _arrived(found, like), _arrived(gradient, like), 2 * error.parameters)


def assert_same_state(before: Mapping[str, Array], after: Mapping[str, Array]) -> None:
    """Raise LawBroken unless every parameter and buffer is, bit for bit, what it was."""
    assert_same_names(before, after)
    for name in sorted(set(before) & set(after)):
        assert_within(name, after[name], before[name], 0.0)


def assert_same_names(before: Mapping[str, object], after: Mapping[str, object]) -> None:
    """Raise AssertionError unless there are the same parameters and buffers.

    One that is not saved may come and go: a module makes it anew, a cache for one.
    """
    gone = {name for name in set(before) ^ set(after) if name == bare(name)}
    assert not gone, f"parameters and buffers changed from {sorted(before)} to {sorted(after)}"


def _codes(oracle: VectorQuantize, reply: Reply) -> Array:
    """Return the codes of the heads, (N, H, D): two codes that are equal are one code."""
    groups = np.arange(oracle.heads) % len(oracle.codes)
    return np.asarray(oracle.codes[groups, reply.indices])


def _arrived(gradient: Array | None, like: Array) -> Array:
    return np.zeros_like(like) if gradient is None else gradient
