"""The effective codebook E = T(C) of SimVQ (Zhu et al., arXiv 2411.02038, §3): a frozen C, seen through a trained T.

T is a stack of affine layers with ReLU between them. One layer is the paper's linear transform; (linear, ReLU, linear)
is what implementations offer beside it. Layers follow torch's convention: weight (out, in), y = C W' + b.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vq_reference import arguments
from vq_reference.arguments import Array


@dataclass(frozen=True)
class Layer:
    """One affine layer: weight (out, in), bias (out,) or None."""

    weight: Array
    bias: Array | None = None


@dataclass(frozen=True)
class LayerGradient:
    """Gradient at one layer, shaped as the layer."""

    weight: Array
    bias: Array | None


def effective_codebook(frozen_codebook: Array, transform: tuple[Layer, ...]) -> Array:
    """Return E = T(C), (K, D), for frozen codes C of (K, F).

    Raises ValueError for an empty codebook, for no layers, and for a layer whose width does not fit, naming the layer.

    >>> flip = Layer(np.array([[0.0, 2.0], [-1.0, 0.0]]))
    >>> effective_codebook(np.array([[1.0, 3.0]]), (flip,))
    array([[ 6., -1.]])
    """
    return activations(frozen_codebook, transform)[-1]


def vjp(frozen_codebook: Array, transform: tuple[Layer, ...], g: Array) -> tuple[LayerGradient, ...]:
    """Return the gradient at each layer, for the gradient g at E, (K, D). C is frozen and gets none.

    Chain rule from the last layer back: ∂W = g'h with h the layer's input, ∂b = Σ_k g, and g ← (gW)·[h > 0] across a
    ReLU, whose derivative at 0 is taken as 0, as torch does.
    """
    inputs = activations(frozen_codebook, transform)
    g = arguments.codes("g", g, inputs[-1].shape[1])
    gradients = []
    for layer, entering in zip(reversed(transform), reversed(inputs[:-1]), strict=True):
        gradients.append(LayerGradient(g.T @ entering, None if layer.bias is None else g.sum(axis=0)))
        g = (g @ layer.weight) * (entering > 0)
    return tuple(reversed(gradients))


def activations(frozen_codebook: Array, transform: tuple[Layer, ...]) -> list[Array]:
    """Return what enters each layer, after the ReLU before it, and last what leaves the last: (K, F) … (K, D).

    >>> halve = Layer(np.array([[0.5]]), np.array([-1.0]))
    >>> activations(np.array([[1.0], [4.0]]), (halve, halve))[1]
    array([[0.],
           [1.]])
    """
    if not transform:
        raise ValueError("transform has no layers: expected at least one")
    activations = [arguments.codes("frozen_codebook", frozen_codebook)]
    for i, layer in enumerate(transform):
        entering = activations[-1]
        weight = arguments.codes(f"transform[{i}].weight", layer.weight, entering.shape[1])
        leaving = entering @ weight.T
        if layer.bias is not None:
            bias = arguments.vectors(f"transform[{i}].bias[None]", np.asarray(layer.bias)[None], len(weight))
            leaving = leaving + bias
        activations.append(leaving if i == len(transform) - 1 else np.maximum(leaving, 0))
    return activations
