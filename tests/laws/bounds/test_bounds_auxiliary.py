"""The bounds of auxiliary terms: counted by hand where numbers are simple, and never too small for float32."""

from math import expm1, log, log1p

import numpy as np
import pytest
from by_hand import U, same

from vq_reference import diversity, orthogonality
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds_auxiliary
from vq_reference.testing.laws.bounds.bounds import gamma

ULP = 2.0**-24


def test_a_directional_output_counts_its_width_and_seven_and_the_last_sum():
    off = gamma(2 + 7, U) * np.array([[4.0, 1.0]])
    found = bounds_auxiliary.directional_output(np.array([[1.0, -2.0]]), np.array([[5.0, -3.0]]), U)
    same(found, (1 + U) * off + U * np.array([[5.0, 3.0]]))


def test_a_directional_gradient_counts_two_directions_a_product_and_three():
    total = 2 * (gamma(3, U) + U) + gamma(2, U) + 3 * U
    found = bounds_auxiliary.directional_gradient(np.array([[3.0, -4.0], [0.0, 2.0]]), U)
    same(found, total / (1 - total) * np.array([[5.0, 5.0], [2.0, 2.0]]))


def test_perplexity_counts_its_shares_and_their_sum():
    # each p log p is −log(2)/2
    off = 3 / 2 * log(2) * gamma(3 + 4, U) + 2 * U
    expected = 2**1.5 * expm1(off + log1p(gamma(2, U)))  # eᵒ(1 + γ) − 1
    same(bounds_auxiliary.perplexity(np.array([1, 2, 1]) / 4, U), expected)


def test_a_sharp_diversity_counts_tokens_and_codes():
    same(bounds_auxiliary.sharp_diversity(3, 5, 2, U), gamma(3 + 5 + 8, U) * (log(2) + 1))


def test_orthogonality_counts_directions_cosines_and_their_sums():
    codes = np.array([[3.0, 4.0], [0.0, 2.0], [-5.0, 0.0]])
    epsilon = gamma(3, U) + U
    delta = 2 * epsilon + gamma(2, U)
    cosines = np.array([1, 1, 1, 0.8, 0.8, 0.6, 0.6, 0, 0])
    value, at_codes = bounds_auxiliary.orthogonality(codes, U)
    squares = np.sum(2 * cosines * delta + delta**2) + gamma(9 + 4, U) * np.sum((cosines + delta) ** 2)
    same(value, squares / 9)
    # Σ|c| of each code's own line is 2.4, 1.8 and 1.6; the lengths are 5, 2 and 5
    size = 4 / 9 * np.array([2.4, 1.8, 1.6])
    off = size * (epsilon + gamma(3 + 6, U)) + 4 / 3 * delta
    rows = (off + (size + off) * (2 * epsilon + gamma(2, U) + gamma(8, U))) / np.array([5, 2, 5])
    same(at_codes, np.stack([rows, rows], axis=1))


# tokens and codes on a line, so that every length is a whole number
TOKENS, CODES = np.array([[0.0, 0.0], [-3.0, 4.0], [9.0, -12.0]]), np.array([[3.0, -4.0], [-6.0, 8.0]])
DISTANCES = np.array([[5.0, 10.0], [10.0, 5.0], [10.0, 25.0]])
TEMPERATURE = 0.125


REACH = np.array([[5.0, 10.0], [10.0, 15.0], [20.0, 25.0]])  # ‖|x| + |e|‖
PAIRS = list(np.ndindex(DISTANCES.shape))


def stages():
    """Return the shares p, and κ, ρ and ρ̄ of these tokens and codes, pair by pair."""
    exponents = 4 * U * (2 * TEMPERATURE * 25 + log(2 * 3))
    weights = np.exp(-TEMPERATURE * DISTANCES)
    shares, kappa, rho = np.zeros((3, 2)), np.zeros((3, 2)), np.zeros((3, 2))
    for n, k in PAIRS:
        shares[n, k] = weights[n, k] / sum(weights[n])
        kappa[n, k] = gamma(2 + 2, U) * (REACH[n, k] / DISTANCES[n, k]) ** 2 + U
    grown = np.exp(TEMPERATURE * kappa * DISTANCES + exponents)
    for n, k in PAIRS:
        rho[n, k] = grown[n, k] * sum(shares[n] * grown[n]) * (1 + gamma(2 + 8, U)) - 1
    mean_of_errors = [sum(shares[:, k] * rho[:, k]) / sum(shares[:, k]) for k in range(2)]
    return shares, kappa, rho, (1 + np.array(mean_of_errors)) * (1 + gamma(3 + 8, U) + exponents) - 1


def test_diversity_is_off_by_what_its_stages_make_of_an_error_in_a_distance():
    """At U products of errors count for a tenth, so that a stage which is left out or taken twice shows."""
    shares, kappa, rho, rho_mean = stages()
    mean = sum(shares) / 3
    in_log, entropy = rho_mean / (1 - rho_mean), -np.log(mean)
    bound = bounds_auxiliary.diversity(TOKENS, CODES, TEMPERATURE, U)
    value = sum(mean[k] * (entropy[k] * (rho_mean[k] + gamma(6, U)) + (1 + rho_mean[k]) * in_log[k]) for k in range(2))
    same(bound.value, value)

    at_x, at_codes = np.zeros((3, 2)), np.zeros((2, 2))
    for n in range(3):
        eta = max(
            (1 + rho[n, k]) ** 2 * (1 + rho_mean[k]) ** 2 * (1 + in_log[k]) * (1 + gamma(2 + 16, U)) for k in range(2)
        )
        c = sum(shares[n, k] * (entropy[k] + 1) for k in range(2))
        for k in range(2):
            slope = TEMPERATURE / 3 * shares[n, k] * (entropy[k] + 1 + c) / DISTANCES[n, k]
            grown = eta / (1 - kappa[n, k])
            along = slope * (grown - 1) * np.abs(TOKENS[n] - CODES[k])
            term = slope * grown * (np.abs(TOKENS[n]) + np.abs(CODES[k]))
            at_x[n] += along + gamma(2 + 6, U) * term
            at_codes[k] += along + gamma(3 + 6, U) * term
    same(bound.x, at_x)
    same(bound.codes, at_codes)


@pytest.mark.parametrize("temperature", [0.5, 8.0])
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_diversity_in_float32_by_the_expanded_square_stays_within_its_bound(temperature, offset):
    generator = np.random.default_rng(0)
    x, codes = (generator.standard_normal((count, 4)).astype(np.float32) + np.float32(offset) for count in (20, 6))
    squares = np.sum(x * x, axis=1)[:, None] - 2 * x @ codes.T + np.sum(codes * codes, axis=1)
    distance = np.sqrt(squares)
    weights = np.exp(np.float32(-temperature) * (distance - distance.min(axis=1, keepdims=True)))
    shares = weights / weights.sum(axis=1, keepdims=True)
    mean = shares.mean(axis=0)
    c = np.log(mean)
    slope = np.float32(-temperature / 20) * shares * (c - np.sum(shares * c, axis=1, keepdims=True)) / distance
    at_x = x * slope.sum(axis=1, keepdims=True) - slope @ codes

    wide = x.astype(float), codes.astype(float), temperature
    bound = bounds_auxiliary.diversity(*wide, ULP)
    assert_within("ℓ", np.sum(mean * c), diversity.diversity(*wide), bound.value)
    assert_within("∂ℓ/∂x", at_x, diversity.vjp(*wide)[0], bound.x)
    assert_within("∂ℓ/∂codes", codes * slope.sum(axis=0)[:, None] - slope.T @ x, diversity.vjp(*wide)[1], bound.codes)


def test_orthogonality_in_float32_stays_within_its_bound():
    codes = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    length = np.sqrt(np.sum(codes * codes, axis=1, keepdims=True))
    directions = codes / length
    cosines = directions @ directions.T
    at_directions = np.float32(4 / 1600) * (cosines - np.eye(40, dtype=np.float32)) @ directions
    across = at_directions - directions * np.sum(at_directions * directions, axis=1, keepdims=True)

    value, bound = bounds_auxiliary.orthogonality(codes.astype(float), ULP)
    computed = np.mean(cosines * cosines) - np.float32(1 / 40)
    assert_within("ℓ", computed, orthogonality.orthogonality(codes), value)
    assert_within("∂ℓ/∂codes", across / length, orthogonality.vjp(codes), bound)
