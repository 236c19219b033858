"""Which tokens of a layer with heads, projections and a metric have choices that rounding cannot change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from vq_reference import cosine, nearest
from vq_reference.arguments import Array
from vq_reference.testing.laws.bounds import bounds, bounds_state
from vq_reference.vector_quantize import VectorQuantize

SHORTEST = 0.25


def heads_of(layer: VectorQuantize, x: Array) -> Array:
    """Return the heads t that codes stand for, (N, H, D)."""
    hidden = _hidden(layer, x).reshape(-1, layer.codes.shape[2])
    return np.asarray(cosine.unit(hidden) if layer.unit else hidden).reshape(len(x), layer.heads, -1)


def codes_of(layer: VectorQuantize, head: int) -> Array:
    """Return the effective codes of a head, (K, D)."""
    codes = layer.codes[head % len(layer.codes)]
    return cosine.unit(codes) if layer.unit else codes


def as_compared(layer: VectorQuantize) -> VectorQuantize:
    """Return the layer whose heads and codes are what the choice compares: directions, with the cosine metric."""
    return replace(layer, unit=True) if layer.by_direction else layer


def excesses(layer: VectorQuantize, x: Array, indices: Array, u: float) -> Iterator[tuple[Array, Array]]:
    """Yield, of each head, ‖t − chosen‖² − ‖t − nearest‖², (N,), and what rounding may make of it.

    `bounds.excess_by_expansion`, and tokens and codes that are themselves off by δ: 2δ(d + d') + 2δ² for distances d
    and d'. indices: (N, H), those that were chosen.
    """
    layer = as_compared(layer)
    tokens, delta = heads_of(layer, x), off(layer, x, u)
    for head in range(layer.heads):
        t, codes = tokens[:, head], codes_of(layer, head)
        distances = nearest.distances(t, codes)
        mine, least = distances[np.arange(len(t)), indices[:, head]], distances.min(axis=1)
        shift = delta[:, head] + (bounds_state.unit(codes.shape[1], u) if layer.unit else 0.0)
        bound = bounds.excess_by_expansion(t, codes[indices[:, head]], codes[distances.argmin(axis=1)], u)
        yield mine**2 - least**2, bound + 2 * shift * (mine + least) + 2 * shift**2


def off(layer: VectorQuantize, x: Array, u: float) -> Array:
    """Bound on ‖fl(t) − t‖, (N, H): `bounds_state.affine`, then at most 2/‖h‖ of it and a rounding for a direction."""
    error = np.linalg.norm(_split(layer, bounds_state.affine(layer.project_in, x, u)), axis=2)
    if not layer.unit:
        return np.asarray(error)
    return np.asarray(
        2 * error / np.maximum(lengths_of(layer, x), SHORTEST) + bounds_state.unit(layer.codes.shape[2], u)
    )


def lengths_of(layer: VectorQuantize, x: Array) -> Array:
    """Return ‖h‖, (N, H), before any division by it."""
    return np.asarray(np.linalg.norm(_split(layer, _hidden(layer, x)), axis=2))


def _hidden(layer: VectorQuantize, x: Array) -> Array:
    """Return h, (N, H·D)."""
    if layer.project_in is None:
        return x
    bias = layer.project_in.bias
    return np.asarray(x @ layer.project_in.weight.T + (0 if bias is None else bias))


def _split(layer: VectorQuantize, rows: Array) -> Array:
    return rows.reshape(len(rows), layer.heads, layer.codes.shape[2])


def decided(layer: VectorQuantize, x: Array, u: float, moved: Array | float = 0.0) -> Array:
    """Return, (N,) bool, whether in every head the nearest code is nearer than any different one by more than rounding.

    `bounds.excess_by_expansion`, and tokens and codes that are themselves off by δ: a square of a distance d is then
    off by 2dδ + δ². Heads shorter than 1/4, which have hardly a direction, are not decided under the cosine metric.
    moved: (N,), by how much tokens are off before they come to the layer.
    """
    layer = as_compared(layer)
    heads, delta = heads_of(layer, x), off(layer, x, u) + np.reshape(moved, (-1, 1))
    answer = np.ones(len(x), bool)
    if layer.unit:
        answer &= (lengths_of(layer, x) > SHORTEST).all(axis=1)
        delta = delta + bounds_state.unit(layer.codes.shape[2], u)
    for head in range(layer.heads):
        t, codes = heads[:, head], codes_of(layer, head)
        distances = nearest.distances(t, codes)
        shortest, best = distances.min(axis=1)[:, None], distances.argmin(axis=1)
        tokens, rivals = (each.reshape(-1) for each in np.indices(distances.shape))
        limit = bounds.excess_by_expansion(t[tokens], codes[best[tokens]], codes[rivals], u).reshape(distances.shape)
        off_by = delta[:, head, None]
        shifted = 2 * off_by * (distances + shortest) + 2 * off_by**2
        alike = (codes[best][:, None] == codes).all(axis=2)
        answer &= (alike | (distances**2 - shortest**2 > limit + shifted)).all(axis=1)
    return answer
