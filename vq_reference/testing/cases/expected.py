"""What right code gives for the input of a case: the oracle's numbers, and how far off rounding may bring them.

No implementation under test is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vq_reference import diversity, ema, nearest
from vq_reference.arguments import Array
from vq_reference.codebook import Layer
from vq_reference.residual import ResidualStack
from vq_reference.simvq import SimVQ
from vq_reference.testing.interface.precision import PRECISIONS
from vq_reference.testing.laws.bounds import bounds, bounds_auxiliary, bounds_state
from vq_reference.vector_quantize import VectorQuantize

Quantities = dict[str, tuple[Array, Array]]


def sim_vq_of(layer: Mapping[str, Any]) -> SimVQ:
    """Return the oracle's SimVQ of a case's layer."""
    transform = tuple(Layer(each["weight"], each["bias"]) for each in layer["transform"])
    return SimVQ(layer["frozen_codebook"], transform, layer["estimator"], layer["beta"], layer["commitment_weight"])


def vector_quantize_of(layer: Mapping[str, Any]) -> VectorQuantize:
    """Return the oracle's VectorQuantize of a case's layer."""
    (codes,) = layer["codes"]
    trained = layer["codes_learn_by"] == "gradient"
    settings = {"beta": layer["beta"], "commitment_weight": layer["commitment_weight"]}
    return VectorQuantize(codes[None], trained=trained, estimator=layer["estimator"], **settings)


def stack_of(layer: Mapping[str, Any]) -> ResidualStack:
    """Return the oracle's stack of a case's layer."""
    trained = layer["codes_learn_by"] == "gradient"
    settings = {"beta": layer["beta"], "commitment_weight": layer["commitment_weight"]}
    return ResidualStack(tuple(layer["codes"]), trained=trained, estimator=layer["estimator"], **settings)


def expected(given: Mapping[str, Any]) -> Quantities:
    """Return quantity → (value, bound) for layer, dtype, flags, x, mask, g_output and g_losses of a case."""
    u = PRECISIONS[given["dtype"]].unit_roundoff
    x = given["x"].reshape(-1, given["x"].shape[-1])
    g = given["g_output"].reshape(x.shape)
    mask = None if given["mask"] is None else given["mask"].reshape(-1)
    layer = given["layer"]
    if layer["object"] == "SimVQ":
        return _sim_vq(sim_vq_of(layer), x, g, float(given["g_losses"][0]), u, "robustness" in given["flags"])
    if layer["object"] == "VectorQuantize":
        return _vector_quantize(layer, x, g, float(given["g_losses"][0]), mask, u)
    return _stack(stack_of(layer), x, g, given["g_losses"], layer.get("kept"), u)


def _estimated(x: Array, q: Array, estimator: str, u: float, robust: bool) -> Array:
    """Bound on an estimator's relative error, (N, 1): of the usual formula, or what robust code reaches everywhere."""
    if estimator != "rotation":
        return np.zeros((len(x), 1))
    if robust:
        return np.full((len(x), 1), bounds.stable_rotation(x.shape[1], u))
    return np.asarray(bounds.rotation(x, q, u)[:, None])


def _output_bound(x: Array, q: Array, estimator: str, u: float, robust: bool) -> Array:
    lengths = np.linalg.norm(q, axis=1, keepdims=True)
    return np.asarray(_estimated(x, q, estimator, u, robust) * lengths + bounds.straight_through_output(x, q, u))


def _gradient_bound(layer: Any, x: Array, q: Array, at_x: Array, of_loss: Array, u: float, robust: bool) -> Array:
    """Bound on the gradient at x: the estimator's, by rows, the loss's, and the sum of both."""
    of_output = np.linalg.norm(at_x - of_loss, axis=1, keepdims=True)
    relative = _estimated(x, q, layer.estimator, u, robust) if of_output.any() else 0.0
    return np.asarray(relative * of_output + bounds.loss_gradient(of_loss, u) + u * np.abs(at_x))


def _sim_vq(layer: SimVQ, x: Array, g: Array, g_loss: float, u: float, robust: bool) -> Quantities:
    forward, backward = layer.forward(x), layer.gradients(x, g, g_loss)
    loss_alone = layer.gradients(x, np.zeros_like(g), g_loss)
    codes = layer.codebook
    q = codes[forward.indices]
    absolute = bounds.codebook_gradient(
        _at_q(layer, x, g_loss) + (np.abs(g) if layer.estimator == "none" else 0.0), forward.indices, len(codes), u
    )
    sizes = absolute / bounds.gamma(8 + len(x), u)
    at_parameters = bounds.transform_gradient(layer.frozen_codebook, layer.transform, sizes, len(x), u)
    found: Quantities = {
        "output": (forward.output, _output_bound(x, q, layer.estimator, u, robust)),
        "indices": (forward.indices, np.zeros(len(x))),
        "losses": (np.array([forward.loss]), np.array([bounds.mean_square(x.size, u) * forward.loss])),
        "gradient at the codebook": (backward.codebook, absolute),
    }
    # x = 0 has no direction to turn
    if np.all(x.any(axis=1)) or layer.estimator != "rotation":
        limit = _gradient_bound(layer, x, q, backward.x, loss_alone.x, u, robust)
        found["gradient at x"] = (backward.x, limit)
    for i, each in enumerate(backward.transform):
        found[f"gradient at {i}.weight"] = (each.weight, at_parameters[f"{i}.weight"])
        if each.bias is not None:
            found[f"gradient at {i}.bias"] = (each.bias, at_parameters[f"{i}.bias"])
    return found


def _at_q(layer: SimVQ, x: Array, g_loss: float) -> Array:
    q = layer.codebook[layer.forward(x).indices]
    return np.asarray(np.abs(2 * g_loss * layer.commitment_weight * (x - q) / x.size))


def _vector_quantize(
    layer: Mapping[str, Any], x: Array, g: Array, g_loss: float, mask: Array | None, u: float
) -> Quantities:
    quantizer = vector_quantize_of(layer)
    forward, backward = quantizer.forward(x, mask), quantizer.gradients(x, g, g_loss, mask)
    valid = np.ones(len(x), dtype=bool) if mask is None else mask
    (codes,) = quantizer.codes
    indices = forward.indices[valid, 0]
    tokens, q = x[valid], codes[indices]
    of_loss = quantizer.gradients(x, np.zeros_like(g), g_loss, mask)
    output, at_x = np.zeros_like(x), np.zeros_like(x)
    at_q = 2 * g_loss * quantizer.commitment_weight * (tokens - q) / tokens.size
    at_codes = bounds.codebook_gradient(at_q, indices, len(codes), u)
    if quantizer.estimator == "directional":
        off = bounds_auxiliary.directional_gradient(g[valid], u)
        along = g[valid] - (backward.x - of_loss.x)[valid]
        output[valid] = bounds_auxiliary.directional_output(tokens, q, u)
        at_x[valid] = off + bounds.loss_gradient(of_loss.x[valid], u) + u * np.abs(backward.x[valid])
        at_codes = bounds.codebook_gradient(np.abs(at_q) + np.abs(along), indices, len(codes), u)
        at_codes = at_codes + nearest.gather_vjp(indices, off, len(codes))
    else:
        output[valid] = _output_bound(tokens, q, quantizer.estimator, u, robust=False)
        at_x[valid] = _gradient_bound(quantizer, tokens, q, backward.x[valid], of_loss.x[valid], u, robust=False)
    found: Quantities = {
        "output": (forward.output, output),
        "indices": (forward.indices, np.zeros(forward.indices.shape)),
        "losses": (np.array([forward.loss]), np.array([bounds.mean_square(tokens.size, u) * forward.loss])),
        "gradient at x": (backward.x, at_x),
        "gradient at the codebook": (backward.codes[0], at_codes),
    }
    if "diversity_weight" in layer:
        _add_diversity(found, layer, codes, x, g_loss, u)
    if layer["codes_learn_by"] == "ema":
        found["codes after the step"] = _step(layer, codes, tokens, indices, u)
    return found


def _add_diversity(
    found: Quantities, layer: Mapping[str, Any], codes: Array, x: Array, g_loss: float, u: float
) -> None:
    """Add the diversity of the codes to the loss, and its gradients. A product with the weight, and a sum: 2u each."""
    weight, temperature = layer["diversity_weight"], layer["diversity_temperature"]
    value, (at_x, at_codes) = diversity.diversity(x, codes, temperature), diversity.vjp(x, codes, temperature)
    error = bounds_auxiliary.diversity(x, codes, temperature, u)
    for quantity, term, off, g in (
        ("losses", np.array([value]), np.array([error.value]), 1.0),
        ("gradient at x", at_x, error.x, g_loss),
        ("gradient at the codebook", at_codes, error.codes, g_loss),
    ):
        before, bound = found[quantity]
        total = before + g * weight * term
        rounded = bounds.gamma(2, u) * (np.abs(before) + np.abs(g * weight * term))
        found[quantity] = total, bound + (1 + bounds.gamma(2, u)) * abs(g * weight) * off + rounded


def _step(layer: Mapping[str, Any], codes: Array, tokens: Array, indices: Array, u: float) -> tuple[Array, Array]:
    """Return the codes after one step from codes that were placed, and the bound for every code, chosen or not."""
    decay, epsilon = layer["decay"], layer["epsilon"]
    batch, start = ema.of_batch(tokens, indices, len(codes)), ema.placed(codes, decay, 0.0)
    after = ema.average(start, batch, decay)
    absolute = ema.average(
        ema.Statistics(start.counts, np.abs(start.sums)), ema.of_batch(np.abs(tokens), indices, len(codes)), decay
    )
    smooth = ema.smoothed(after.counts, epsilon)
    limit = bounds_state.ema_codes(absolute.sums, smooth, len(tokens), 1, u)
    return ema.codes(codes, after, batch, epsilon), limit


def _stack(stack: ResidualStack, x: Array, g: Array, g_losses: Array, kept: int | None, u: float) -> Quantities:
    forward, backward = stack.forward(x, kept), stack.gradients(x, g, list(g_losses), kept)
    residuals, _, quantized = stack.residuals(x, kept)
    rounding = bounds.gamma(len(stack.codes) + 2, u) * (np.abs(x) + sum(np.abs(q) for q in quantized))
    scale = stack.commitment_weight * (stack.beta + stack.trained)
    losses = np.zeros(len(stack.codes))
    at_x = bounds.gamma(2 * len(stack.codes) + 8, u) * (np.abs(g) + np.abs(backward.x))
    for i, (r, q) in enumerate(zip(residuals, quantized, strict=True)):
        shift = scale * float(np.mean(2 * np.abs(r - q) * rounding + rounding**2))
        losses[i] = bounds.mean_square(x.size, u) * (forward.losses[i] + shift) + shift
        at_x = at_x + abs(g_losses[i]) * 2 * stack.commitment_weight * stack.beta / x.size * (
            rounding + bounds.gamma(8, u) * np.abs(r - q)
        )
    return {
        "output": (forward.output, rounding),
        "indices": (forward.indices, np.zeros(forward.indices.shape)),
        "losses": (forward.losses, losses),
        "gradient at x": (backward.x, at_x),
    }
