"""Every tolerance of this project, as a formula: unit roundoff × operation count × condition of the problem.

Notation: u is the unit roundoff of the dtype that the implementation computes in, γ_n = nu/(1 − nu) bounds the relative
error of n rounded operations in any order (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., §3.1).
Sums over D are bounded in the worst case, n·u, where rounding errors of random sign reach about √n·u: for large D the
margins stay below 1 by that much.
"""

from __future__ import annotations

import numpy as np

from vq_reference.arguments import Array
from vq_reference.codebook import Layer, activations
from vq_reference.estimators import Estimator
from vq_reference.testing.laws.bound_docs import note_calls


def gamma(n: float, u: float) -> float:
    """γ_n = nu/(1 − nu). Raises ValueError where nu ≥ 1: nothing can be said of so long a computation.

    >>> gamma(3, 2.0**-53) == 3 * 2.0**-53 / (1 - 3 * 2.0**-53)
    True
    """
    if n * u >= 1:
        raise ValueError(f"{n} operations at unit roundoff {u} have no error bound: use a smaller case")
    return n * u / (1 - n * u)


def straight_through_output(x: Array, q: Array, u: float) -> Array:
    """Bound on |out − q|, entry by entry, (N, D), for x + (q − x) in every order: (q + x) − x is as right.

    The sum or difference that comes first is off by u of itself, |q − x| or |q + x|, of which the larger one is
    |q| + |x|; what comes second has the value q, and is off by another u of about that: u(1 + u)(|q| + |x|) + u|q|.
    """
    return np.asarray(u * (1 + u) * (np.abs(q) + np.abs(x)) + u * np.abs(q))


def direction(dim: int, u: float) -> float:
    """Bound on ‖fl(v/‖v‖) − v/‖v‖‖. A sum of D squares: γ_D; the root halves it and adds u, the division adds u."""
    return gamma(dim / 2 + 2, u)


def bisector_length(x: Array, q: Array) -> Array:
    """Return ‖x̂ + q̂‖, (N,), which is 2cos(θ/2): 2 for equal directions and 0 for opposite ones. x, q not zero."""
    x_hat = x / np.linalg.norm(x, axis=1, keepdims=True)
    q_hat = q / np.linalg.norm(q, axis=1, keepdims=True)
    return np.asarray(np.linalg.norm(x_hat + q_hat, axis=1))


def rotation(x: Array, q: Array, u: float) -> Array:
    """Bound on ‖fl(λR'g) − λR'g‖ / (λ‖g‖), (N,), by the formula R = I − 2ww' + 2q̂x̂'.

    With ε the bound of `direction` and s = ‖x̂ + q̂‖: the sum x̂ + q̂ is off by 2ε + us, and dividing by its length makes
    that δ_w = (2ε + us)/s + ε. The two products w(w'g) and x̂(q̂'g) are off by γ_D + 2δ_w + 2u and γ_D + 2ε + 2u, each
    doubled; the two additions of terms of length 1, 2 and 2 add 3u + 5u; λ is a quotient of two norms, times the
    vector: (D + 4)u. The neglected products of errors are covered by c/(1 − c). For opposite directions the formula
    has no answer, and the bound is infinite.
    """
    dim = x.shape[1]
    off = direction(dim, u)
    s = bisector_length(x, q)
    with np.errstate(divide="ignore"):
        off_w = (2 * off + u * s) / s + off
    total = 2 * (gamma(dim, u) + 2 * off_w + 2 * u) + 2 * (gamma(dim, u) + 2 * off + 2 * u) + 8 * u + (dim + 4) * u
    return np.asarray(np.divide(total, 1 - total, where=total < 1, out=np.full_like(total, np.inf)))


def output(x: Array, q: Array, estimator: Estimator, u: float) -> Array:
    """Bound on |output − q|, entry by entry, (N, D), for the usual form of the estimator's forward."""
    if estimator == "rotation":
        lengths = np.broadcast_to(np.linalg.norm(q, axis=1, keepdims=True), q.shape)
        return np.asarray(rotation(x, q, u)[:, None] * lengths)
    return straight_through_output(x, q, u)


def estimator_gradient(x: Array, q: Array, g: Array, estimator: Estimator, u: float) -> Array:
    """Bound on the gradient at x, (N, D), for the gradient g at the output.

    Straight-through hands g on, rounded once at most: u|g|. The rotation: the relative bound of `rotation` × λ‖g‖. No
    estimator, no gradient: 0.
    """
    if estimator == "none":
        return np.zeros_like(g)
    if estimator == "straight_through":
        return np.asarray(u * np.abs(g))
    lengths = np.linalg.norm(q, axis=1) / np.linalg.norm(x, axis=1) * np.linalg.norm(g, axis=1)
    return np.broadcast_to((rotation(x, q, u) * lengths)[:, None], g.shape)


def estimator_underflow(x: Array, q: Array, spacing: float) -> Array:
    """Bound on what the gradient at x, (N, D), loses where its terms leave the normal range downwards, (N, 1).

    Each operation is off by at most the spacing of subnormal numbers there: two sums of D products and eight more, each
    multiplied by 2 and by λ before it arrives.
    """
    ratio = np.linalg.norm(q, axis=1, keepdims=True) / np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(2 * (2 * x.shape[1] + 8) * np.maximum(ratio, 1) * spacing)


def stable_rotation(dim: int, u: float) -> float:
    """Bound as `rotation`, but without its 1/‖x̂ + q̂‖: what two well-conditioned reflections reach at every angle.

    One reflection v − 2a(a'v): a is a unit vector up to ε, so that a(a'v) is off by 2ε + γ_D + 2u, doubled, and the
    difference of lengths 1 and 2 adds 3u. Two of them, and λ as in `rotation`. That R x̂ arrives at q̂ asks more: a comes
    from x̂ − q̂, no shorter than √2 where it is used, and is off by √2·ε; b is orthogonal to q̂ up to ε + γ_D.
    """
    off = direction(dim, u)
    reflection = 2 * (2 * off + gamma(dim, u) + 2 * u) + 3 * u
    arrival = 4 * np.sqrt(2) * off + 2 * (off + gamma(dim, u))
    total = 2 * reflection + arrival + (dim + 4) * u
    return float(total / (1 - total))


def orthogonality(row: Array) -> Array:
    """Bound on |M M' − I|, entry by entry, where each row of M is off by `row`: (r_i + e_i)'(r_j + e_j)."""
    return np.asarray(2 * row + row**2)


def determinant(row: Array, dim: int) -> Array:
    """Bound on |det(R + E) − 1| with each row of E at most `row`: ‖E‖₂ ≤ √D·row = e, and (1 + e)^D − 1."""
    return np.asarray(np.expm1(dim * np.log1p(np.sqrt(dim) * row)))


def excess_by_expansion(x: Array, chosen: Array, best: Array, u: float) -> Array:
    """Bound on ‖x − chosen‖² − ‖x − best‖², (N,), for a choice through ‖x‖² − 2x·c + ‖c‖².

    What is added up, in any order: ‖x‖², ‖c‖² and D products. A term passes its own product and at most D + 1
    additions: γ_{D+2}(‖x‖² + 2|x|'|c| + ‖c‖²). ‖c‖² comes with an error of its own, γ_D‖c‖², and ‖x‖² with none that
    counts: it is the same number for every code. The root that cdist takes is off by u, its square by 2u‖x − c‖². All
    of it once for the chosen code and once for the best: in the worst case both err by as much, and apart.
    """
    return np.asarray(_expanded(x, chosen, u) + _expanded(x, best, u))


def _expanded(x: Array, c: Array, u: float) -> Array:
    dim = x.shape[1]
    length = np.sum(c**2, axis=1)
    terms = np.sum(x**2, axis=1) + 2 * np.sum(np.abs(x * c), axis=1) + length
    summed = gamma(dim + 2, u) * terms + gamma(dim, u) * length
    return np.asarray((1 + gamma(2, u)) * summed + gamma(2, u) * np.sum((x - c) ** 2, axis=1))


def excess_by_difference(x: Array, chosen: Array, best: Array, u: float) -> Array:
    """Bound on ‖x − chosen‖² − ‖x − best‖², (N,), for a choice through the differences: γ_{D+5}·d², twice."""
    squares = [np.sum((x - c) ** 2, axis=1) for c in (chosen, best)]
    return np.asarray(gamma(x.shape[1] + 5, u) * (squares[0] + squares[1]))


def mean_square(count: int, u: float) -> float:
    """Relative bound on w·(mean square + β·mean square): a difference, its square, a sum of `count`, five more steps.

    Every term is positive, so nothing cancels, whichever order the sum takes.
    """
    return gamma(count + 8, u)


def loss_gradient(gradient: Array, u: float) -> Array:
    """Bound on the gradient of ℓ at x, entry by entry: a difference times 2wβ/(ND), no sum; at most eight roundings."""
    return np.asarray(gamma(8, u) * np.abs(gradient))


def codebook_gradient(at_q: Array, indices: Array, codebook_size: int, u: float) -> Array:
    """Bound on the gradient at the codebook, (K, D): a sum over the tokens of a code, of terms with eight roundings."""
    absolute = np.zeros((codebook_size, at_q.shape[1]))
    np.add.at(absolute, indices, np.abs(at_q))
    return np.asarray(gamma(8 + len(at_q), u) * absolute)


def transform_gradient(
    frozen_codebook: Array, transform: tuple[Layer, ...], absolute_at_codebook: Array, tokens: int, u: float
) -> dict[str, Array]:
    """Bound on the gradient at each parameter of the transform, by name; the activations themselves are exact.

    The chain rule on absolute values: no sum of products is off by more than γ times the sum of their absolute values.
    The roundings of all stages add up: eight for the loss, a sum over tokens, and for each layer a sum over the codes
    and one over its width.
    """
    inputs = activations(frozen_codebook, transform)
    g = absolute_at_codebook
    roundings = 8 + tokens
    bound: dict[str, Array] = {}
    for i in reversed(range(len(transform))):
        layer, entering = transform[i], inputs[i]
        factor = gamma(roundings + len(frozen_codebook), u)
        bound[f"{i}.weight"] = factor * (g.T @ np.abs(entering))
        if layer.bias is not None:
            bound[f"{i}.bias"] = factor * g.sum(axis=0)
        g = (g @ np.abs(layer.weight)) * (entering > 0)
        roundings += layer.weight.shape[0]
    return bound


def decoded(frozen_codes: Array, transform: tuple[Layer, ...], u: float) -> Array:
    """Bound on the error of T(C_i) by matrix products, entry by entry, (N, D): γ of the widths, on absolute values."""
    size = np.abs(frozen_codes)
    for layer in transform:
        size = size @ np.abs(layer.weight).T + (0.0 if layer.bias is None else np.abs(layer.bias))
    return np.asarray(gamma(sum(layer.weight.shape[1] + 2 for layer in transform), u) * size)


note_calls(__name__)
