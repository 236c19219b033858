"""The slope of a function along a line, from five of its values, with what is known of the error.

Notation: D(h) = (f(h) − f(−h)) / 2h, S(h) = (f(h) − 2f(0) + f(−h)) / h.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Slope:
    """df/dt at t = 0 and the three parts of its error; arrays of one shape, an entry for each function.

    value: Richardson's extrapolation R = (4 D(h/2) − D(h)) / 3, whose own error is of order h⁴.
    rounding: with an absolute error ε in each value, |δD(h)| ≤ ε/h and |δD(h/2)| ≤ 2ε/h, so |δR| ≤ (8 + 1)/3 · ε/h.
    truncation: |R − D(h/2)|, the term in h² that R takes out of D(h/2): more than what is left in R.
    jump: |2 S(h/2) − S(h)|, of order h³ where f is smooth; where f has a kink at 0, the difference of its two slopes.
    It is large as well where f(0) is no value of the same function, so that a replay that is not faithful shows.
    """

    value: Floats
    rounding: Floats
    truncation: Floats
    jump: Floats

    @property
    def error(self) -> Floats:
        """The sum of the three."""
        return self.rounding + self.truncation + self.jump


def slope(values: tuple[Floats, Floats, Floats, Floats, Floats], h: float, noise: Floats) -> Slope:
    """Return the slope from the values at −h, −h/2, 0, h/2 and h, each wrong by up to `noise`.

    >>> t = np.array([-0.5, -0.25, 0.0, 0.25, 0.5])
    >>> cubic = slope(tuple((t + t**3)[:, None]), h=0.5, noise=np.zeros(1))
    >>> cubic.value, cubic.jump
    (array([1.]), array([0.]))
    >>> kink = slope(tuple(np.abs(t)[:, None]), h=0.5, noise=np.zeros(1))
    >>> kink.value, kink.jump
    (array([0.]), array([2.]))
    """
    far_minus, near_minus, centre, near_plus, far_plus = values
    wide, narrow = (far_plus - far_minus) / (2 * h), (near_plus - near_minus) / h
    value = (4 * narrow - wide) / 3
    bend_wide = (far_plus - 2 * centre + far_minus) / h
    bend_narrow = (near_plus - 2 * centre + near_minus) / (h / 2)
    return Slope(value, 3 * noise / h, np.abs(value - narrow), np.abs(2 * bend_narrow - bend_wide))


def steps(u: float) -> tuple[float, float, float]:
    """Return the steps to try, in units in which the point has size 1, for unit roundoff u.

    u^(1/3) makes u/h and h² equal: the best step of a central difference. u^(1/5) is for functions that carry more
    rounding than their size says; u^(1/2) keeps clear of kinks.
    """
    return u ** (1 / 3), u ** (1 / 5), u ** (1 / 2)


def resolution(u: float) -> float:
    """Return the error, relative to the derivative's size, above which a comparison says nothing.

    u^(1/3): a third of the digits. Where the steps above fit, two thirds are reached.
    """
    return float(u ** (1 / 3))


def settle(slopes: list[Slope]) -> tuple[Floats, Floats]:
    """Return, entry by entry, the slope with the smallest error among several steps, and what its error is.

    An estimate of an error can be too small itself (rounding inside the function that its size does not show). So the
    distance to the nearest estimate at another step is added: a true slope comes out the same at two steps.
    """
    value, own, distance = _sharpest(slopes)
    return value, own + distance


def overruled(claim: Floats, slopes: list[Slope]) -> NDArray[np.bool_]:
    """Say, entry by entry, whether a slope claimed is refuted by a sharper step than the last one.

    A step with a large error lets many a claim pass. Where a sharper one saw the same slope, within both their errors,
    it is the better measurement of the two, and the claim has to fit it as well, as `settle` has it. Where it saw
    another one, there was a kink or unseen rounding within the one step that is not within the other.
    """
    value, own, distance = _sharpest(slopes)
    same = np.abs(value - slopes[-1].value) <= own + slopes[-1].error
    return np.asarray(same & (np.abs(claim - value) > own + distance))


def _sharpest(slopes: list[Slope]) -> tuple[Floats, Floats, Floats]:
    """Return the slope with the smallest error, this error, and the distance to the nearest slope at another step."""
    value = np.stack([one.value for one in slopes])
    error = np.stack([one.error for one in slopes])
    best = np.argmin(np.where(np.isfinite(error), error, np.inf), axis=0)[None]
    chosen, own = np.take_along_axis(value, best, 0)[0], np.take_along_axis(error, best, 0)[0]
    distance = np.abs(value - chosen)
    np.put_along_axis(distance, best, np.inf, 0)
    return chosen, own, distance.min(axis=0)
