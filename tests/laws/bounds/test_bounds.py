"""Each bound covers its computation in float32, and is not slack without a reason: how near it is come is asserted.

The computations are done here as most people write them, on inputs of hard proportions drawn from a fixed seed. A bound
adds up roundings that all go the wrong way, which no computation of more than a few steps does: the shares asserted are
those of a bound with a spurious factor of two or three, and the reason for each stands beside it.
"""

import numpy as np
import pytest
import torch

from vq_reference import codebook
from vq_reference.codebook import Layer
from vq_reference.nn.estimators import rotate
from vq_reference.testing.laws.assertions import assert_within, listening
from vq_reference.testing.laws.bounds import bounds

U = float(np.finfo(np.float32).eps) / 2
DIMS = (1, 2, 3, 6)
MANY = 20000


def narrow(values):
    """Round to float32, so that both sides are asked the same question."""
    return np.asarray(values).astype(np.float32)


def vectors(count, dim, seed=0):
    """Return float32 vectors, (count, D), of lengths over twelve powers of two."""
    generator = np.random.default_rng([seed, dim])
    return narrow(generator.standard_normal((count, dim)) * 2.0 ** generator.uniform(-6, 6, (count, 1)))


def pairs(dim):
    """Return x and q, (MANY, D), at every angle up to one where half of the digits of x̂ + q̂ are gone."""
    x, tangent = vectors(MANY, dim, 1).astype(float), vectors(MANY, dim, 2).astype(float)
    angle = np.random.default_rng(3).uniform(0, 1, (MANY, 1))
    angle = np.where(np.arange(MANY)[:, None] % 2, np.pi * angle, np.pi - 2.0 ** (-10 * angle))
    x_hat = x / np.linalg.norm(x, axis=1, keepdims=True)
    tangent = tangent - x_hat * np.sum(tangent * x_hat, axis=1, keepdims=True)
    tangent = tangent / np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), np.finfo(float).tiny)
    length = np.linalg.norm(vectors(MANY, dim, 4).astype(float), axis=1, keepdims=True)
    return narrow(x), narrow((x_hat * np.cos(angle) + tangent * np.sin(angle)) * length)


def reach(actual, expected, bound):
    """Assert that the bound holds, and return how much of it was reached."""
    heard = []
    with listening(lambda what, margin: heard.append(margin)):
        assert_within("computed in float32", actual, expected, bound)
    return heard[0]


def test_gamma_bounds_any_sum_of_so_many_roundings():
    # (1 + u)^n − 1 is what n roundings reach that all go up
    for n in (1, 10, 1000):
        assert np.expm1(n * np.log1p(U)) <= bounds.gamma(n, U) <= np.expm1(n * np.log1p(U)) / (1 - n * U)
    with pytest.raises(ValueError, match="have no error bound: use a smaller case"):
        bounds.gamma(2.0 / U, U)


@pytest.mark.parametrize("order", [lambda x, q: x + (q - x), lambda x, q: (q + x) - x, lambda x, q: x - (x - q)])
def test_straight_through_is_reached_to_nine_tenths_in_every_order(order):
    x, q = vectors(MANY, 6, 1), vectors(MANY, 6, 2)
    reached = reach(order(x, q), q, bounds.straight_through_output(x.astype(float), q.astype(float), U))
    assert reached > 0.9


@pytest.mark.parametrize("dim", DIMS)
def test_the_direction_is_reached_to_a_quarter(dim):
    v = vectors(MANY, dim)
    computed = v / np.sqrt(np.sum(v * v, axis=1, keepdims=True))
    wide = v.astype(float)
    exact = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    reached = reach(np.linalg.norm(computed - exact, axis=1), 0.0, bounds.direction(dim, U))
    # one entry: a square and its root cancel, and v/|v| is exact
    assert reached > (0.25 if dim > 1 else -1)


def by_the_formula(x, q, g):
    """Return λR'g with R = I − 2ww' + 2q̂x̂', in the dtype of its arguments, and λ."""
    lengths = [np.sqrt(np.sum(v * v, axis=1, keepdims=True)) for v in (x, q)]
    x_hat, q_hat = x / lengths[0], q / lengths[1]
    w = x_hat + q_hat
    w = w / np.sqrt(np.sum(w * w, axis=1, keepdims=True))
    ratio = lengths[1] / lengths[0]
    wg, qg = (np.sum(v * g, axis=1, keepdims=True) for v in (w, q_hat))
    return ratio * (g - 2 * w * wg + 2 * x_hat * qg), ratio


@pytest.mark.parametrize("dim", DIMS[1:])
def test_the_rotation_by_its_formula_is_reached_to_a_sixteenth(dim):
    x, q = pairs(dim)
    g = vectors(MANY, dim, 5)
    computed, _ = by_the_formula(x, q, g)
    exact, ratio = by_the_formula(*(v.astype(np.longdouble) for v in (x, q, g)))
    error = np.linalg.norm((computed - exact).astype(float), axis=1)
    size = (ratio[:, 0] * np.linalg.norm(g.astype(np.longdouble), axis=1)).astype(float)
    # w is off by the worst of both directions at once, in the direction of g at once
    assert reach(error / size, 0.0, bounds.rotation(x.astype(float), q.astype(float), U)) > 1 / 16


@pytest.mark.parametrize("dim", DIMS[1:])
def test_the_stable_rotation_is_reached_to_a_sixteenth_at_every_angle(dim):
    x, q = pairs(dim)
    leaf = torch.tensor(x, requires_grad=True)
    out = rotate(leaf, torch.tensor(q))
    rows = [torch.autograd.grad(out, leaf, torch.eye(dim)[i].expand_as(out), retain_graph=True)[0] for i in range(dim)]
    jac = torch.stack(rows, dim=1).double().numpy()
    wide_x, wide_q = x.astype(float), q.astype(float)
    length = np.linalg.norm(wide_q, axis=1)
    arrived = np.linalg.norm(np.einsum("nij,nj->ni", jac, wide_x) - wide_q, axis=1) / length
    row = bounds.stable_rotation(dim, U)
    reached = reach(arrived, 0.0, row)
    m = jac * (np.linalg.norm(wide_x, axis=1) / length)[:, None, None]
    reached = max(reached, reach(m @ np.swapaxes(m, 1, 2), np.eye(dim), bounds.orthogonality(np.array(row))))
    # it adds up what a mirror, its arrival and λ may each be off, of which no one quantity meets all
    assert reached > 1 / 16


@pytest.mark.parametrize("dim", DIMS[1:])
def test_orthogonality_is_reached_and_the_determinant_to_the_root_of_the_width(dim):
    turning, _ = np.linalg.qr(np.random.default_rng(dim).standard_normal((dim, dim)))
    turning[0] *= np.sign(np.linalg.det(turning))
    row = 2.0**-20
    stretched = turning * (1 + row * (1 - row))  # less by more than float64's own rounding
    assert reach(stretched @ stretched.T, np.eye(dim), bounds.orthogonality(np.array(row))) > 0.9
    # √D: rows that are all off by as much as they may be, and in one direction, are no longer orthogonal
    assert reach(np.linalg.det(stretched), 1.0, bounds.determinant(np.array(row), dim)) > 0.9 / np.sqrt(dim)


def crowd(offset, dim=4):
    """Return 500 tokens and 50 codes around a common offset, in float32."""
    generator = np.random.default_rng(0)
    return tuple(narrow(generator.standard_normal((count, dim)) + offset) for count in (MANY // 40, 50))


def excess_of(x, codes, squares):
    """Return how much farther the choice by these squares is than the nearest, and both codes."""
    exact = np.sum((x[:, None, :].astype(float) - codes) ** 2, axis=2)
    chosen, best = squares.argmin(axis=1), exact.argmin(axis=1)
    rows = np.arange(len(x))
    return exact[rows, chosen] - exact[rows, best], codes[chosen].astype(float), codes[best].astype(float)


def test_a_choice_by_the_expanded_square_reaches_a_thirty_second_of_its_bound():
    reached = []
    for offset in (0.0, 10.0, 100.0, 1000.0):
        x, codes = crowd(offset)
        squares = np.sum(x * x, axis=1, keepdims=True) - 2 * x @ codes.T + np.sum(codes * codes, axis=1)
        extra, chosen, best = excess_of(x, codes, squares)
        reached.append(reach(extra, 0.0, bounds.excess_by_expansion(x.astype(float), chosen, best, U)))
    # D + 5 roundings for two codes, all the wrong way; and the choice is only as wrong as the next code allows
    assert max(reached) > 1 / 32


def test_a_choice_by_differences_reaches_a_sixteenth_of_its_bound():
    # codes so alike, seen from so far, that rounding decides among them
    generator = np.random.default_rng(0)
    x, codes = narrow(generator.standard_normal((MANY, 3))), narrow(50 + generator.standard_normal((20, 3)) * 2.0**-17)
    squares = np.sum((x[:, None, :] - codes) ** 2, axis=2)
    extra, chosen, best = excess_of(x, codes, squares)
    assert reach(extra, 0.0, bounds.excess_by_difference(x.astype(float), chosen, best, U)) > 1 / 16


@pytest.mark.parametrize("count", [1, 2, 6, 30])
def test_the_mean_square_is_reached_to_an_eighth_or_the_root_of_its_count(count):
    x, q = vectors(MANY, count, 1), vectors(MANY, count, 2)
    beta, weight = np.float32(0.3), np.float32(0.7)
    squares = [np.cumsum((x - q) ** 2, axis=1, dtype=np.float32)[:, -1] / np.float32(count) for _ in range(2)]
    computed = weight * (squares[0] + beta * squares[1])
    wide = np.mean((x.astype(float) - q.astype(float)) ** 2, axis=1)
    exact = float(weight) * (1 + float(beta)) * wide
    # rounding errors of random sign add up to √n of n, and half of the steps after the sum do not occur here
    assert reach(computed, exact, bounds.mean_square(count, U) * exact) > 1 / 8 / np.sqrt(count)


def test_the_losss_gradient_is_reached_to_a_quarter():
    x, q = vectors(MANY, 6, 1), vectors(MANY, 6, 2)
    beta, weight, count = (np.float32(v) for v in (0.3, 0.7, 30))
    computed = weight * (beta * ((x - q) * (np.float32(2) / count)))
    exact = float(weight) * float(beta) * (x.astype(float) - q.astype(float)) * 2 / 30
    # five roundings happen in this order of the factors, of the eight that some order has
    assert reach(computed, exact, bounds.loss_gradient(exact, U)) > 1 / 4


def test_the_codebooks_gradient_is_reached_to_a_sixteenth():
    reached = []
    for tokens in (1, 3, 12):
        x, q = vectors(tokens, MANY, 1), vectors(1, MANY, 2)
        terms = (x - q) * (np.float32(-2) / np.float32(7))
        computed = np.cumsum(terms, axis=0, dtype=np.float32)[-1:]
        exact = (x.astype(float) - q.astype(float)) * -2 / 7
        bound = bounds.codebook_gradient(exact, np.zeros(tokens, int), 1, U)
        reached.append(reach(computed, exact.sum(axis=0, keepdims=True), bound))
    assert max(reached) > 1 / 16


def test_the_transforms_gradient_and_its_forward_are_reached_to_a_sixteenth():
    gradients, outputs = [], []
    for seed in range(200):
        # whole numbers: what enters the second layer is exact, as the bound supposes
        frozen, first = (np.round(8 * np.sin(vectors(*shape, seed))) for shape in ((4, 3), (5, 3)))
        second = vectors(2, 5, seed)
        transform = (Layer(first.astype(float)), Layer(second.astype(float)))
        hidden = np.maximum(frozen @ first.T, 0)
        exact = codebook.effective_codebook(frozen, transform)
        outputs.append(reach(hidden @ second.T, exact, bounds.decoded(frozen, transform, U)))

        g = vectors(4, 2, seed)
        computed = [((g @ second) * (hidden > 0)).T @ frozen, g.T @ hidden]
        exact = codebook.vjp(frozen, transform, g.astype(float))
        limits = bounds.transform_gradient(frozen, transform, np.abs(g).astype(float), 1, U)
        for i, (c, e) in enumerate(zip(computed, exact, strict=True)):
            gradients.append(reach(c, e.weight, limits[f"{i}.weight"]))
    # the bounds count a sum over tokens and the loss's own eight roundings, which are left out here
    assert min(max(gradients), max(outputs)) > 1 / 16
