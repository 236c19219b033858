"""The routing of a stop-gradient loss: which share of its derivative goes to the encoder, and which to the codebook.

For ℓ = w·(mean(sg(x) − q)² + β·mean(x − sg(q))²) the plain derivative, by which x and q move the value of ℓ, is that of
w·(1 + β)·mean(x − q)². Autograd hands the encoder β/(1 + β) of it and the codebook 1/(1 + β). No replay is needed: the
plain derivative is a finite difference of the loss, as long as no index changes.

Measured from outside, the two shares name the fault: a loss with the same value can route its gradient in many ways.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vq_reference.testing.derivatives.probe import length
from vq_reference.testing.derivatives.step import Floats, Slope, resolution, slope, steps


@dataclass(frozen=True)
class Share:
    """Autograd's derivative over the plain one, along the direction of steepest descent. error: of the quotient."""

    value: float
    error: float

    def is_(self, expected: float) -> bool:
        """Whether the share is `expected`, within its error."""
        return abs(self.value - expected) <= self.error


@dataclass(frozen=True)
class Shares:
    """What the encoder and the codebook get of a loss's derivative, and the name of that routing."""

    encoder: Share
    codebook: Share
    pattern: str

    def __str__(self) -> str:
        return f"encoder {self.encoder.value:.6g} : codebook {self.codebook.value:.6g}, {self.pattern}"


RIGHT = "as declared"
UNKNOWN = "a routing that is not known here"


def patterns(beta: float) -> dict[str, tuple[float, float]]:
    """Return the known routings, name -> (encoder, codebook), for β on the encoder half; the right one first.

    >>> patterns(0.25)[RIGHT]
    (0.2, 0.8)
    """
    small, large = beta / (1 + beta), 1 / (1 + beta)
    return {
        RIGHT: (small, large),
        "beta on the codebook half (taming-transformers, issues 46 and 57)": (large, small),
        "encoder half missing (vector-quantize-pytorch 1.20.1 to 1.20.10, issue 177)": (0.0, 1.0),
        "codebook half missing, or a codebook that is not trained by this loss": (1.0, 0.0),
        "no stop-gradient in either half": (1.0, 1.0),
        "loss computed behind the straight-through estimator (jax-vqvae-gpt, issue 2)": ((beta - 1) * large, 0.0),
        "codebook half detached, the encoder half in place": (small, 0.0),
        "encoder half detached, the codebook half in place": (0.0, large),
        "detached altogether": (0.0, 0.0),
    }


def measure_shares(
    loss: Callable[[], Tensor], encoder: Sequence[Tensor], codebook: Sequence[Tensor], *, beta: float, seed: int = 0
) -> Shares:
    """Measure how a loss routes its derivative, and name the routing.

    loss: returns the loss, a scalar tensor, computed anew from the present values of the tensors below.
    encoder, codebook: float64 leaves that require a gradient: what the encoder puts out, and the trained parameters
    of the codebook (its transform's, or its codes). They are moved in place and put back.
    beta: weight of the encoder half, against 1 for the codebook half.
    Raises ValueError for tensors that are no such leaves, and where the derivative cannot be measured: it is zero, or
    the loss has a kink within the step, as it has where an index changes.

    >>> x, q = (torch.tensor(t, dtype=torch.float64, requires_grad=True) for t in ([1.0, 2.0], [0.0, 4.0]))
    >>> loss = lambda: (x.detach() - q).square().mean() + 0.25 * (x - q.detach()).square().mean()
    >>> print(measure_shares(loss, [x], [q], beta=0.25))
    encoder 0.2 : codebook 0.8, as declared
    """
    if not beta >= 0:
        raise ValueError(f"beta is {beta}: expected a number that is not negative")
    for name, group in (("encoder", encoder), ("codebook", codebook)):
        for k, tensor in enumerate(group):
            if tensor.dtype is not torch.float64 or not tensor.is_leaf or not tensor.requires_grad:
                found = f"{tensor.dtype}, is_leaf={tensor.is_leaf}, requires_grad={tensor.requires_grad}"
                raise ValueError(
                    f"{name}[{k}] is {found}: expected a float64 leaf that requires a gradient "
                    "(where it is a buffer: requires_grad_())"
                )
    tensors = [*encoder, *codebook]
    gradients = _gradients(loss(), tensors)
    first = len(encoder)
    shares = (
        _share("encoder", loss, tensors[:first], gradients[:first], seed),
        _share("codebook", loss, tensors[first:], gradients[first:], seed),
    )
    fits = (name for name, pair in patterns(beta).items() if all(s.is_(p) for s, p in zip(shares, pair, strict=True)))
    return Shares(*shares, next(fits, UNKNOWN))


def _gradients(value: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    if not value.requires_grad:
        return [torch.zeros_like(tensor) for tensor in tensors]
    found = torch.autograd.grad(value, list(tensors), allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for t, g in zip(tensors, found, strict=True)]


def _share(
    name: str, loss: Callable[[], Tensor], tensors: Sequence[Tensor], gradients: Sequence[Tensor], seed: int
) -> Share:
    """Measure along autograd's gradient, where it is largest; along a random direction where there is none."""
    generator = torch.Generator().manual_seed(seed)
    slopes = gradients
    if not any(bool(g.any()) for g in gradients):
        slopes = [torch.randn(t.shape, generator=generator, dtype=t.dtype).to(t.device) for t in tensors]
    norm = torch.stack([g.square().sum() for g in slopes]).sum().sqrt()
    reach = max((length(t.detach()) for t in tensors), default=1.0)
    direction = [g / norm * reach for g in slopes]
    plain = _plain_slope(loss, tensors, direction)
    value, error = float(plain.value), float(plain.error)
    u = torch.finfo(torch.float64).eps / 2
    if not error < resolution(u) * abs(value):
        raise ValueError(
            f"the loss has no measurable derivative by the {name}: {value:.3g} ± {error:.1e}. "
            "It does not depend on it, or an index changes within the step: choose another point. Or it changes from "
            "call to call, as with codes by moving average: choose eval mode"
        )
    routed = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))
    share = routed / value
    # first order: δ(r/v) = (r/v)·δv/v; where nothing is routed the share is exactly 0
    return Share(share, abs(share) * error / abs(value))


def _plain_slope(loss: Callable[[], Tensor], tensors: Sequence[Tensor], direction: Sequence[Tensor]) -> Slope:
    """Difference the loss as it is; of the three steps of step.py, the one with the smallest error."""
    origin = [tensor.detach().clone() for tensor in tensors]

    def value(t: float) -> Floats:
        with torch.no_grad():
            for tensor, start, step in zip(tensors, origin, direction, strict=True):
                tensor.copy_(start + t * step)
        return np.array(float(loss().detach()))

    u = torch.finfo(torch.float64).eps / 2
    try:
        # a mean of squares over n entries: a relative error of (log2(n) + 3)·u, pairwise summed (Higham, §4.2)
        n = sum(tensor.numel() for tensor in tensors)
        noise = np.abs(value(0.0)) * (np.log2(max(n, 2)) + 3) * u
        found = [slope((value(-h), value(-h / 2), value(0.0), value(h / 2), value(h)), h, noise) for h in steps(u)]
        return min(found, key=lambda one: float(np.nan_to_num(one.error, nan=np.inf)))
    finally:
        with torch.no_grad():
            for tensor, start in zip(tensors, origin, strict=True):
                tensor.copy_(start)
