"""One fixed input, and what the commitment loss and its gradients on it must be.

    ℓ = mean((sg(x) − q)²) + β·mean((x − sg(q))²),   q = W c_i,   i = argmin over k of ‖x − W c_k‖

With d = x − q and n = N·D entries, the codebook half gives ∂ℓ/∂W = −(2/n) Σ d c' and nothing to x, the encoder half
gives ∂ℓ/∂x = (2β/n) d and nothing to W, and both have the value of the mean square, the second times β. So three
measurements on one input say which halves an implementation has: that is the static side of issue 177.

The values below are computed from x, C and W alone, in float64; no implementation is asked.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: β, the weight of the encoder half; every release has this default.
BETA = 0.25


@dataclass(frozen=True)
class StaticInput:
    """Input of a quantizer: x (B, N, D), frozen codebook C (K, D), transform W (D, D), each value exact in float32."""

    x: Array
    C: Array
    W: Array


@dataclass(frozen=True)
class Halves:
    """Which halves of the loss are there.

    >>> str(BOTH), str(CODEBOOK_ONLY), str(NEITHER)
    ('both', 'codebook', 'none')
    """

    codebook: bool
    encoder: bool

    def __str__(self) -> str:
        names = [name for name, there in asdict(self).items() if there]
        return {0: "none", 2: "both"}.get(len(names), "".join(names))


#: The three losses that SimVQ had: both halves since 1.20.11, no encoder half before, no loss at all in 1.20.0.
BOTH, CODEBOOK_ONLY, NEITHER = Halves(True, True), Halves(True, False), Halves(False, False)


@dataclass(frozen=True)
class Quantity:
    """Values of the loss (scalar), ∂ℓ/∂x (B, N, D) and ∂ℓ/∂W (D, D); or bounds on the error of each."""

    loss: float
    x: Array
    W: Array


@dataclass(frozen=True)
class Row:
    """What one implementation answered to the case: a line of the table.

    subject, estimator: who, and with which estimator. loss: ℓ. mse: mean (x − q)², in float64 from the case alone.
    grad_x (B, N, D), grad_transform (D, D): gradients of ℓ, None where backward left none.
    """

    subject: str
    estimator: str
    loss: float
    mse: float
    grad_x: list[Any] | None
    grad_transform: list[Any] | None

    @property
    def ratio(self) -> float:
        """Return ℓ / mse: 1 + β with both halves, 1 without the encoder half, 0 without any."""
        return self.loss / self.mse

    def norm(self, name: str) -> float | None:
        """Return the Frobenius norm of ``grad_x`` or ``grad_transform``, None where there is none."""
        gradient = getattr(self, name)
        return None if gradient is None else float(np.linalg.norm(np.asarray(gradient)))

    def halves(self) -> Halves | None:
        """Return the halves whose loss and whole gradients these are, within the bound; None where none fit."""
        given = case()
        found = Quantity(
            self.loss,
            np.zeros_like(given.x) if self.grad_x is None else np.asarray(self.grad_x),
            np.zeros_like(given.W) if self.grad_transform is None else np.asarray(self.grad_transform),
        )
        return next((halves for halves in (BOTH, CODEBOOK_ONLY, NEITHER) if _agree(found, given, halves)), None)


def case(B: int = 2, N: int = 32, D: int = 16, K: int = 64) -> StaticInput:
    """Return the fixed input. Scales are those of SimVQ's own initialization: C ~ N(0, 1/D), W ~ U(±1/√D); x ~ N(0, 1).

    >>> given = case()
    >>> given.x.shape, given.C.shape, given.W.shape
    ((2, 32, 16), (64, 16), (16, 16))
    """
    # From seed 177 on, the first whose tokens all have one nearest code beyond any rounding: 177 itself has a near tie.
    draw = np.random.default_rng(178)
    x = draw.standard_normal((B, N, D))
    C = draw.standard_normal((K, D)) / np.sqrt(D)
    W = draw.uniform(-1, 1, (D, D)) / np.sqrt(D)
    return StaticInput(*(a.astype(np.float32).astype(np.float64) for a in (x, C, W)))


def difference(given: StaticInput) -> tuple[Array, Array, Array]:
    """Return d = x − q, the frozen code c behind each q, and |W||c|, which bounds q's error; each (B, N, D)."""
    distance = np.linalg.norm(given.x[..., None, :] - given.C @ given.W.T, axis=-1)
    c = given.C[distance.argmin(axis=-1)]
    return given.x - c @ given.W.T, c, np.abs(c) @ np.abs(given.W.T)


def expected(given: StaticInput, halves: Halves) -> Quantity:
    """Return loss and gradients by the formulas at the head of this file."""
    d, c, _ = difference(given)
    encoder, codebook = BETA * halves.encoder, float(halves.codebook)
    return Quantity(
        float((codebook + encoder) * np.mean(d**2)),
        encoder * 2 / d.size * d,
        -codebook * 2 / d.size * np.einsum("bni,bnj->ij", d, c),
    )


def bound(given: StaticInput, halves: Halves, u: float) -> Quantity:
    """Bound on the error of each value in an arithmetic of unit roundoff u, entry by entry.

    γ_m = m·u / (1 − m·u) bounds m roundings in any order (Higham, §3.1). A code is a product of length D and the
    difference one subtraction: |δd| ≤ η = γ_D·|W||c|·(1 + u) + u·|d|.
    Loss: squares differ by at most 2|d|η + η²; then a square, n − 1 additions, a division, a weight, a sum of two
    halves and the total weight: n + 4 roundings of a sum of positive terms.
    ∂ℓ/∂x: η carried through, and four roundings (2/n, β, both products).
    ∂ℓ/∂W: η carried through; a sum over tokens, then over codes, of rounded products: B·N + K + 4 roundings.
    An absent half is exact.
    """

    def gamma(m: int) -> float:
        return m * u / (1 - m * u)

    d, c, size = difference(given)
    d, c, n = np.abs(d), np.abs(c), d.size
    eta = gamma(d.shape[-1]) * size * (1 + u) + u * d
    encoder, codebook = BETA * halves.encoder, float(halves.codebook)
    terms = d.size // d.shape[-1] + len(given.C) + 4
    return Quantity(
        float((codebook + encoder) * np.mean(2 * d * eta + eta**2 + gamma(n + 4) * (d + eta) ** 2)),
        encoder * 2 / n * (eta + gamma(4) * (d + eta)),
        codebook * 2 / n * np.einsum("bni,bnj->ij", eta + gamma(terms) * (d + eta), c),
    )


def _agree(found: Quantity, given: StaticInput, halves: Halves) -> bool:
    right, within = expected(given, halves), bound(given, halves, u=2.0**-24)
    return bool(
        abs(found.loss - right.loss) <= within.loss
        and (np.abs(found.x - right.x) <= within.x).all()
        and (np.abs(found.W - right.W) <= within.W).all()
    )
