"""Which tokens of a layer with heads, projections and a metric have choices that rounding cannot change."""

from __future__ import annotations

import numpy as np

from vq_reference import cosine, nearest
from vq_reference.arguments import Array
from vq_reference.testing import bounds, bounds_state
from vq_reference.vector_quantize import VectorQuantize


def heads_of(layer: VectorQuantize, x: Array) -> Array:
    """Return the heads t that the oracle chooses for, (N, H, D)."""
    hidden = x if layer.project_in is None else x @ layer.project_in.weight.T + layer.project_in.bias
    hidden = hidden.reshape(-1, layer.codes.shape[2])
    return np.asarray(cosine.unit(hidden) if layer.unit else hidden).reshape(len(x), layer.heads, -1)


def codes_of(layer: VectorQuantize, head: int) -> Array:
    """Return the effective codes of a head, (K, D)."""
    codes = layer.codes[head % len(layer.codes)]
    return cosine.unit(codes) if layer.unit else codes


def decided(layer: VectorQuantize, x: Array, u: float) -> Array:
    """Return, (N,) bool, whether in every head the nearest code is nearer than any different one by more than rounding.

    `bounds.excess_by_expansion`, and tokens and codes that are themselves off by δ: a square of a distance d is then
    off by 2dδ + δ². Heads of no length, which have no direction, are not decided under the cosine metric.
    """
    heads, answer = heads_of(layer, x), np.ones(len(x), bool)
    width = layer.codes.shape[2]
    off = np.linalg.norm(bounds_state.affine(layer.project_in, x, u).reshape(len(x), layer.heads, width), axis=2)
    if layer.unit:
        hidden = x if layer.project_in is None else x @ layer.project_in.weight.T + layer.project_in.bias
        length = np.linalg.norm(hidden.reshape(len(x), layer.heads, width), axis=2)
        answer &= (length > 0.25).all(axis=1)
        off = 2 * off / np.maximum(length, 0.25) + 2 * bounds_state.unit(width, u)
    for head in range(layer.heads):
        t, codes, delta = heads[:, head], codes_of(layer, head), off[:, head]
        distances = nearest.distances(t, codes)
        best = codes[distances.argmin(axis=1)]
        shortest = distances.min(axis=1)
        for code, distance in zip(codes, distances.T, strict=True):
            rival = np.broadcast_to(code, best.shape)
            moved = 2 * delta * (distance + shortest) + 2 * delta**2
            gap = distance**2 - shortest**2
            answer &= (rival == best).all(axis=1) | (gap > bounds.excess_by_expansion(t, best, rival, u) + moved)
    return answer
