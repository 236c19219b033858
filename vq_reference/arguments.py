"""What the oracle accepts: checks that name the argument, its value or shape, and what was expected."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def vectors(name: str, value: object, width: int | None = None) -> Array:
    """Return `value` as a float64 array of row vectors, (N, D) with D ≥ 1.

    Any real floating dtype is widened, which is exact. Raises TypeError for integer, complex or object entries, and
    ValueError for a rank other than 2, for a width other than `width` where one is given, and for NaN or infinity.

    >>> vectors("x", np.ones((2, 3), np.float32)).dtype
    dtype('float64')
    >>> vectors("x", np.ones((2, 3)), width=4)
    Traceback (most recent call last):
    ValueError: x has shape (2, 3): expected (N, 4)
    """
    array = np.asarray(value)
    if not np.issubdtype(array.dtype, np.floating):
        raise TypeError(f"{name} has dtype {array.dtype}: expected a real floating dtype, such as float64")
    if array.ndim != 2 or array.shape[1] == 0 or (width is not None and array.shape[1] != width):
        expected = f"(N, {width})" if width is not None else "(N, D) with D of at least 1"
        raise ValueError(f"{name} has shape {array.shape}: expected {expected}")
    return finite(name, array.astype(np.float64))


def alike(name: str, value: object, like: Array) -> Array:
    """Return `value` as `vectors` does; raise ValueError unless it has the shape of `like`, one row for each of its.

    >>> alike("q", np.ones((1, 2)), np.ones((3, 2)))
    Traceback (most recent call last):
    ValueError: q has shape (1, 2): expected (3, 2)
    """
    array = vectors(name, value)
    if array.shape != like.shape:
        raise ValueError(f"{name} has shape {array.shape}: expected {like.shape}")
    return array


def finite(name: str, array: Array) -> Array:
    """Return `array`; raise ValueError that names its first entry which is NaN or infinite.

    >>> finite("x", np.array([[1.0, np.nan]]))
    Traceback (most recent call last):
    ValueError: x[0, 1] is nan: expected finite entries
    """
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        where = ", ".join(str(i) for i in bad[0])
        raise ValueError(f"{name}[{where}] is {array[tuple(bad[0])]}: expected finite entries")
    return array


def codes(name: str, value: object, width: int | None = None) -> Array:
    """Return `value` as `vectors` does; raise ValueError if it holds no code at all."""
    array = vectors(name, value, width)
    if not len(array):
        raise ValueError(f"{name} has shape {array.shape}: expected at least one code")
    return array


def weight(name: str, value: float) -> float:
    """Return `value` as a float; raise ValueError unless it is finite and not negative.

    >>> weight("beta", -0.25)
    Traceback (most recent call last):
    ValueError: beta is -0.25: expected a finite number of at least 0
    """
    number = float(value)
    if not (np.isfinite(number) and number >= 0):
        raise ValueError(f"{name} is {value}: expected a finite number of at least 0")
    return number
