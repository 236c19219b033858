"""What the laws draw: a SimVQ layer, and tokens put on purpose where implementations go wrong.

A random token is never near a tie, on a code, or opposite to one, so each token says where it stands (`PLACES`). Every
number is representable in the dtype of the implementation under test, and the transform makes the effective codes
without any rounding: a signed permutation times a power of two, or small integers. So the implementation and the oracle
have the same codes, bit for bit, and no transform is the identity.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import replace
from functools import cache

import numpy as np
from hypothesis import event
from hypothesis import strategies as st

from vq_reference import cosine
from vq_reference.arguments import Array
from vq_reference.codebook import Layer, effective_codebook
from vq_reference.estimators import Estimator
from vq_reference.simvq import SimVQ
from vq_reference.testing.interface.subjects import (
    OPPOSITE,
    REGULAR,
    REGULAR_ANGLE,
    REGULAR_NORMS,
    TRAINED,
    Case,
    NotApplicable,
    given_sizes,
    offers,
    precision,
)
from vq_reference.vector_quantize import VectorQuantize

# and what it declares that a layer is where another is asked for: weights of its loss, its metric
meaning: ContextVar[Callable[[VectorQuantize], VectorQuantize]] = ContextVar("meaning", default=lambda layer: layer)


@cache
def sizes(largest: int) -> st.SearchStrategy[int]:
    """Draw 1 … largest; one token, one dimension, one code are what it shrinks to."""
    return st.integers(1, largest)


def _entries() -> Array:
    """Return what a byte stands for in a vector, (256,): the simplest first, and every fifth byte 0, 1 or −1."""
    table = np.roll(np.linspace(-1, 1, 256), 128)[np.arange(256) * 89 % 256]
    table[::10], table[1::20], table[2::20] = 0.0, 1.0, -1.0
    return table


ENTRIES = _entries()


@cache
def directions(dim: int) -> st.SearchStrategy[Array]:
    """Draw a unit vector, (D,), a byte an entry: hypothesis draws and shrinks one string of bytes far sooner."""

    def of_unit_length(drawn: bytes) -> Array:
        v = ENTRIES[np.frombuffer(drawn, np.uint8)]
        return np.asarray(v / np.linalg.norm(v) if v.any() else np.eye(dim)[0])

    return st.binary(min_size=dim, max_size=dim).map(of_unit_length)


@cache
def norms(low: float = REGULAR_NORMS[0], high: float = REGULAR_NORMS[1]) -> st.SearchStrategy[float]:
    """Draw a length, evenly over the exponents."""
    exponents = st.floats(float(np.log2(low)), float(np.log2(high)))
    return exponents.map(lambda e: 2.0**e)


@cache
@st.composite
def vectors(draw: st.DrawFn, dim: int, count: int) -> Array:
    """Draw `count` vectors of regular norms, (count, D), representable in the dtype under test."""
    rows = [draw(directions(dim)) * draw(norms()) for _ in range(count)]
    rounded = precision.get().round(np.array(rows).reshape(count, dim))
    return without_traces(rounded)


def without_traces(rounded: Array) -> Array:
    """Return the array with entries so small set to 0 that a factor of a few powers of two makes them subnormal.

    Such an entry would not survive the transform's power of two, nor its gradient the mean over the batch.
    """
    smallest = precision.get().smallest_normal
    return np.where(np.abs(rounded) < max(8 * smallest, min(2.0**24 * smallest, 2.0**-40)), 0.0, rounded)


@st.composite
def _token(draw: st.DrawFn, codes: Array, place: str) -> Array:
    """Draw one token, (D,), at one of PLACES."""
    dim = codes.shape[1]
    event(f"token {place}")
    code = codes[draw(st.integers(0, len(codes) - 1))]
    length = float(np.linalg.norm(code))
    q_hat = code / length if length else np.eye(dim)[0]
    if place == "anywhere":
        return np.asarray(draw(directions(dim)) * draw(norms()))
    if place == "on the code" or (place == "tie" and len(codes) == 1):
        return np.asarray(code)
    if place == "tie":
        # halfway to the nearest different code, where no third one is nearer
        apart = np.linalg.norm(codes - code, axis=1)
        other = codes[np.argmin(np.where(apart > 0, apart, np.inf))]
        return np.asarray((code + other) / 2)
    if place in ("tiny", "huge"):
        limit = precision.get()
        towards = np.sqrt(limit.smallest_normal) if place == "tiny" else np.sqrt(limit.largest)
        return np.asarray(draw(directions(dim)) * towards * draw(norms(2.0**-3, 2.0**-1)))
    if place == "zero":
        return np.zeros(dim)
    if place == "zero code":
        # so short that the code 0, where there is one, is the nearest
        apart = np.linalg.norm(codes, axis=1)
        return np.asarray(draw(directions(dim)) * min(apart[apart > 0], default=1.0) / 4)
    tangent = draw(directions(dim))
    tangent = tangent - q_hat * (tangent @ q_hat)
    tangent = tangent / np.linalg.norm(tangent) if np.linalg.norm(tangent) > 2.0**-10 else np.zeros(dim)
    if place == "along the code":
        angle = 0.0
    elif place == "at an angle":
        angle = draw(st.floats(0, REGULAR_ANGLE) | st.sampled_from([np.pi / 2, REGULAR_ANGLE, 2.0**-12]))
    else:
        short = 0.0 if place == "opposite" else draw(st.floats(1, 24).map(lambda e: 2.0**-e))
        angle = np.pi - short
    # cos π is −1 exactly, but sin π is not 0: opposite means opposite
    across = 0.0 if angle == np.pi else np.sin(angle)
    return np.asarray((q_hat * np.cos(angle) + tangent * across) * draw(norms()))


@st.composite
def tokens(draw: st.DrawFn, codes: Array, places: Sequence[str] = REGULAR) -> Array:
    """Draw x, (N, D), rounded to the dtype under test: N from 1 to the number of places, no two at the same place.

    So that a place is reached by plan and not by luck: only cases of few tokens miss it. Rounding may carry a token
    past its regular angle or norm by as much as a rounding error; where one of regular places comes out as zero, as a
    tie of opposite codes does, it is put on the first code instead.
    """
    count, first = draw(sizes(len(places))), draw(st.integers(0, len(places) - 1))
    rows = [draw(_token(codes, places[(first + i) % len(places)])) for i in range(count)]
    x = precision.get().round(np.array(rows))
    if "zero" not in places:
        x = without_traces(x)
        x = np.where(np.linalg.norm(x, axis=1, keepdims=True) < REGULAR_NORMS[0] / 2, codes[0], x)
    return np.asarray(x)


@cache
def signed_permutations(dim: int) -> st.SearchStrategy[Layer]:
    """Draw a linear transform that rounds nothing: a signed permutation times a power of two. All, by their number."""

    def numbered(number: int) -> Layer:
        number, exponent = divmod(number, 3)
        number, signs = divmod(number, 2**dim)
        left, weight = list(range(dim)), np.zeros((dim, dim))
        for row in range(dim):
            number, place = divmod(number, dim - row)
            weight[row, left.pop(place)] = -1.0 if signs >> row & 1 else 1.0
        return Layer(weight * (2.0, 0.5, 4.0)[exponent])

    return st.integers(0, 3 * 2**dim * math.factorial(dim) - 1).map(numbered)


def _through(codes: Array, layer: Layer) -> Array:
    """Return the frozen codes C with C W' = codes, exactly: W W' is a power of four times the identity."""
    return np.asarray(codes @ layer.weight / float(np.max(np.abs(layer.weight))) ** 2)


def _coarse(codes: Array) -> Array:
    """Return codes on a grid of 1/16 of the largest entry: halfway between two is a number, and a tie is exact."""
    step = np.ldexp(1.0, np.frexp(np.max(np.abs(codes)))[1] - 4)
    rounded = np.round(codes / step) * step
    return np.asarray(np.where(np.any(rounded, axis=1, keepdims=True), rounded, np.eye(1, codes.shape[1]) * step))


@st.composite
def codebooks(draw: st.DrawFn, dim: int, most: int, places: Sequence[str] = REGULAR) -> Array:
    """Draw effective codes, (K, D) with K from 1 to `most`; one may be drawn twice, and be zero where places allow."""
    # of several codes the nearest is seldom the one that a token is opposite to
    alone = not set(places).isdisjoint(OPPOSITE) and draw(st.booleans())
    codes = draw(vectors(dim, 1 if alone else draw(sizes(most))))
    if draw(st.booleans()):
        event("coarse codes")
        codes = _coarse(codes)
    if wanted := given_sizes.get():
        codes = np.resize(codes, (wanted[1], dim))  # all K of them, by repetition
    elif len(codes) > 1 and draw(st.booleans()):
        event("duplicated code")
        codes[-1] = codes[0]
    if "zero code" in places and draw(st.booleans()):
        event("zero code in the codebook")
        codes[0] = 0.0
    return np.asarray(codes)


def trained() -> st.SearchStrategy[Estimator]:
    """Draw an estimator that is offered: what rounding may do differs, and the other one's bound is not for it."""
    offered = [each for each in TRAINED if f"estimator:{each}" in offers.get()]
    return st.sampled_from(offered or TRAINED)


def _dims(least: int, most: int) -> st.SearchStrategy[int]:
    """Draw D, or take that of an instance. Raises NotApplicable where the law is not about that D."""
    if not (wanted := given_sizes.get()):
        return st.integers(least, most)
    dim = wanted[0]
    if dim < least or most == 1 < dim:
        raise NotApplicable(f"it is an instance of {dim} dimensions, and the law is about {least} to {most}")
    return st.just(dim)


betas = st.sampled_from([0.25, 0.5, 2.0, 0.0])
weights = st.sampled_from([1.0, 2.0, 0.75, 10.0])


@st.composite
def cases(
    draw: st.DrawFn,
    estimator: Estimator | None = None,
    places: Sequence[str] = REGULAR,
    most_codes: int = 4,
    dims: tuple[int, int] = (2, 6),
) -> Case:
    """Draw a layer with an exact linear transform, and tokens. Estimators: the given one, or any that is offered.

    Leaves out one dimension, where there is nothing to turn and which nobody trains, unless `dims` says otherwise.
    """
    dim = draw(_dims(*dims))
    codes = draw(codebooks(dim, most_codes, places))
    layer = draw(signed_permutations(dim))
    chosen = draw(trained()) if estimator is None else estimator
    reference = SimVQ(_through(codes, layer), (layer,), chosen, draw(betas), draw(weights))
    return Case(reference, draw(tokens(codes, places)))


@st.composite
def steps(draw: st.DrawFn) -> tuple[Case, Case]:
    """Draw a case, and another of the same sizes and frozen codes with another transform: codes of other lengths.

    Its rows have powers of two of their own, so that no length of a code is what it was, nor in the same proportion.
    """
    before = draw(cases(most_codes=8))
    layer = draw(signed_permutations(before.x.shape[1]))
    powers = np.array([draw(st.sampled_from([1.0, 2.0, 4.0])) for _ in layer.weight])
    after = replace(before.reference, transform=(Layer(layer.weight * powers[:, None]),))
    return before, Case(after, draw(tokens(after.codebook)))


@st.composite
def crowds(draw: st.DrawFn, offsets: Sequence[float] = (0.0, 10.0, 1000.0)) -> Case:
    """Draw a case of 1 … 40 tokens and codes around a common offset, beside which their distances are small.

    `torch.cdist` turns from differences to the expanded square above 25 rows on either side, so both sides of that are
    drawn. The numbers come from a seeded generator: what matters here is how many they are.
    """
    many, few = st.integers(26, 40), sizes(25)
    sides = ((few, few), (many, few), (sizes(40), many))
    (on_one, on_the_other), offset = draw(st.sampled_from([*itertools.product(sides, offsets)]))
    dim, count, codebook_size = draw(_dims(2, 6)), draw(on_one), draw(on_the_other)
    if wanted := given_sizes.get():
        codebook_size = wanted[1]
    event(f"offset {offset:g}")
    event("more than 25 rows" if max(count, codebook_size) > 25 else "at most 25 rows")
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))
    codes = precision.get().round(generator.standard_normal((codebook_size, dim)) + offset)
    x = precision.get().round(generator.standard_normal((count, dim)) + offset)
    layer = draw(signed_permutations(dim))
    return Case(SimVQ(_through(codes, layer), (layer,), draw(trained())), x)


@st.composite
def near_ties(draw: st.DrawFn) -> Case:
    """Draw a case whose tokens are nearly as near to a second code: ‖x − a‖² and ‖x − b‖² differ by 2^−3 … 2^−22 of it.

    Under the cosine metric a, b and x are directions. Distances that are computed with fewer digits than declared
    confuse just these. A case of its own and no place in others: laws that compare two calls are about tokens that
    rounding cannot move.
    """
    dim, count = draw(_dims(2, 6)), draw(sizes(12))
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))
    size = draw(sizes(8)) + 1
    if wanted := given_sizes.get():
        size = wanted[1]
    codes = precision.get().round(generator.standard_normal((size, dim)) * 2.0 ** generator.integers(-3, 4))
    first, second = generator.integers(0, size, (2, count))
    places = codes if "euclidean" in offers.get() else cosine.unit(codes)
    one, other = places[first], places[second]
    aside = 2.0 ** -generator.integers(3, 23, (count, 1)) * generator.choice([-1, 1], (count, 1))
    x = precision.get().round((one + other) / 2 + aside * (one - other))
    layer = draw(signed_permutations(dim))
    return Case(SimVQ(_through(codes, layer), (layer,), draw(trained())), x)


@st.composite
def large_codebooks(draw: st.DrawFn) -> Case:
    """Draw a case of more than 32, 64, 128, 256 or 1024 codes, of which up to 32 are the tokens, the last ones too.

    Where a search is cut into blocks, or an index kept in a byte or in bfloat16, the codes behind a power of two are
    lost. Those are longer than the others and so apart from them: rounding seldom leaves them undecided.
    """
    dim = draw(_dims(2, 6))
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))
    # by the generator: hypothesis dwells on some of a few, and in a run by default may never draw the one that matters
    size = int(generator.choice([32, 64, 128, 256, 1024])) + draw(sizes(8))
    if wanted := given_sizes.get():
        size = wanted[1]
    event(f"more than {2 ** (size.bit_length() - 1)} codes")
    behind = min(8, max(1, size - (1 << max((size - 1).bit_length() - 1, 0))))
    codes = generator.standard_normal((size, dim)) * 4
    codes[-behind:] *= 8
    codes = precision.get().round(codes)
    tokens = np.append(generator.permutation(size - behind)[: 32 - behind], np.arange(size - behind, size))
    layer = draw(signed_permutations(dim))
    return Case(SimVQ(_through(codes, layer), (layer,), draw(trained())), codes[tokens])


def _integers(draw: st.DrawFn, shape: tuple[int, ...], largest: int) -> Array:
    """Draw whole numbers of at most that size: 0, 1, −1, 2, … for the bytes in turn."""
    count = int(np.prod(shape))
    drawn = np.frombuffer(draw(st.binary(min_size=count, max_size=count)), np.uint8) % (2 * largest + 1)
    return np.where(drawn % 2, (drawn + 1) // 2, -(drawn // 2.0)).reshape(shape)


@st.composite
def transform_cases(draw: st.DrawFn, layers: int) -> Case:
    """Draw a transform of one or more layers of small integers, sizes all different, that rounds nothing in any order.

    Biases are halves, so that no ReLU stands at its kink, where its derivative is a convention.
    """
    if given_sizes.get():
        raise NotApplicable("it is an instance, and the law varies the sizes of the transform")
    dim, frozen_dim = draw(st.integers(2, 4)), draw(st.integers(1, 4))
    widths = [frozen_dim] + [draw(st.integers(1, 5)) for _ in range(layers - 1)] + [dim]
    transform = tuple(
        Layer(_integers(draw, (leaving, entering), 2), _integers(draw, (leaving,), 2) + 0.5 if layers > 1 else None)
        for entering, leaving in itertools.pairwise(widths)
    )
    frozen = _integers(draw, (draw(st.integers(min(layers, 2), 4)), frozen_dim), 2)
    codes = effective_codebook(frozen, transform)
    estimator: Estimator = draw(trained())
    reference = SimVQ(frozen, transform, estimator, draw(betas), draw(weights))
    drawn = tokens(codes, ("anywhere", "at an angle", "on the code"))
    return Case(reference, draw(drawn.filter(_all_regular)))


def _all_regular(x: Array) -> bool:
    return bool(np.all(np.linalg.norm(x, axis=1) >= REGULAR_NORMS[0] / 2))
