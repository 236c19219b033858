"""Auxiliary terms: diversity and orthogonality of codes, perplexity and usage of a choice."""

import numpy as np
from hypothesis import strategies as st

from vq_reference import diversity, orthogonality, usage
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds, bounds_auxiliary
from vq_reference.testing.laws.expected.commitment_loss import arrived
from vq_reference.testing.laws.law import law
from vq_reference.testing.laws.strategies.auxiliary_cases import choices, codebooks, sharp_spreads, spreads

ENTROPY = "Baevski et al., arXiv 2006.11477, eq. 4"
RIGHT_ANGLES = "Shin et al., arXiv 2112.00384, eq. 2"
COUNTING = "the exponential of Shannon's entropy"


def spread_term(implementation, spread, leading=None):
    """Return the term of the tokens, each a batch of its own unless said otherwise."""
    shape = (len(spread.x), 1) if leading is None else leading
    return implementation.auxiliary.diversity(spread.x, shape, spread.codes, spread.temperature)


def spread_bound(implementation, spread):
    return bounds_auxiliary.diversity(*spread, implementation.precision.unit_roundoff)


def counting_roundoff(implementation):
    """Return the roundoff of what counts are turned into, which need not be the tokens' own dtype: float32 at least."""
    return max(implementation.precision.unit_roundoff, 2.0**-24)


@law("aux.diversity_value", level="must", source=ENTROPY, needs={"diversity"}, spread=spreads())
def test_the_diversity_term_is_minus_the_entropy_of_the_mean_soft_choice(implementation, spread):
    """The diversity term is minus the entropy of how tokens choose on average, the nearest code the likeliest."""
    value = spread_term(implementation, spread).value
    assert_within("diversity", value, diversity.diversity(*spread), spread_bound(implementation, spread).value)


@law("aux.diversity_extremes", level="must", source=ENTROPY, needs={"diversity"}, sharp=sharp_spreads())
def test_the_diversity_term_is_lowest_for_even_use_and_zero_for_one_code(implementation, sharp):
    """With a sharp choice the diversity term is −log K where every code is used alike, and 0 where one code is."""
    spread, used = sharp
    u = implementation.precision.unit_roundoff
    bound = bounds_auxiliary.sharp_diversity(len(spread.x), len(spread.codes), used, u)
    value = spread_term(implementation, spread).value
    assert_within("diversity", value, -np.log(used), bound)


@law("aux.diversity_gradient", level="must", source=ENTROPY, needs={"diversity"}, spread=spreads())
def test_the_diversity_term_has_its_gradient_at_tokens_and_codes(implementation, spread):
    """The diversity term moves tokens and codes along the gradient of its formula, each by its own part."""
    term, bound = spread_term(implementation, spread), spread_bound(implementation, spread)
    at_x, at_codes = diversity.vjp(*spread)
    assert_within("gradient at x", arrived(term.x, at_x), at_x, bound.x)
    assert_within("gradient at the codes", arrived(term.codes, at_codes), at_codes, bound.codes)


@law(
    "aux.diversity_arrangement",
    level="must",
    source=ENTROPY,
    needs={"diversity"},
    spread=spreads(),
    data=st.data(),
)
def test_the_diversity_term_does_not_depend_on_how_tokens_are_arranged(implementation, spread, data):
    """Tokens have the same diversity in one sequence as in a batch of sequences, and in any order."""
    count = len(spread.x)
    order = np.array(data.draw(st.permutations(range(count)), label="order"))
    bound = 2 * spread_bound(implementation, spread).value
    apart = spread_term(implementation, spread).value
    together = spread_term(implementation, spread._replace(x=spread.x[order]), (1, count)).value
    assert_within("diversity in one sequence", together, apart, bound)


@law("aux.orthogonality_value", level="must", source=RIGHT_ANGLES, needs={"orthogonality"}, codes=codebooks())
def test_the_orthogonality_term_is_the_mean_square_of_the_cosines_between_codes(implementation, codes):
    """The orthogonality term is Σ_{i≠j} (ê_i·ê_j)²/K²: 0 at right angles, 1 − 1/K on one line, whatever the lengths."""
    bound, _ = bounds_auxiliary.orthogonality(codes, implementation.precision.unit_roundoff)
    value = implementation.auxiliary.orthogonality(codes).value
    assert_within("orthogonality", value, orthogonality.orthogonality(codes), bound)


@law("aux.orthogonality_gradient", level="must", source=RIGHT_ANGLES, needs={"orthogonality"}, codes=codebooks())
def test_the_orthogonality_term_has_its_gradient_at_both_codes_of_a_pair(implementation, codes):
    """The orthogonality term moves both codes of each pair, across their directions, by the gradient of its formula."""
    _, bound = bounds_auxiliary.orthogonality(codes, implementation.precision.unit_roundoff)
    expected = orthogonality.vjp(codes)
    at_codes = arrived(implementation.auxiliary.orthogonality(codes).codes, expected)
    assert_within("gradient at the codes", at_codes, expected, bound)


@law("aux.perplexity", level="must", source=COUNTING, needs={"perplexity"}, choice=choices())
def test_the_perplexity_is_the_exponential_of_the_entropy_of_the_choice(implementation, choice):
    """Perplexity is e to the entropy of the shares in which codes were chosen: 1 for one code, K for even use."""
    indices, size = choice
    counts = usage.counts(indices, size)
    bound = bounds_auxiliary.perplexity(counts[counts > 0] / counts.sum(), counting_roundoff(implementation))
    value = implementation.auxiliary.perplexity(indices, size)
    assert_within("perplexity", value, usage.perplexity(indices, size), bound)


@law("aux.usage", level="must", source="a share is counted", needs={"usage"}, choice=choices())
def test_the_usage_is_the_share_of_codes_that_a_token_chose(implementation, choice):
    """Usage is the share of codes that at least one token chose."""
    expected = usage.usage(*choice)
    bound = bounds.gamma(choice[1] + 1, counting_roundoff(implementation)) * expected
    assert_within("usage", implementation.auxiliary.usage(*choice), expected, bound)


@law("aux.padding", level="must", source="padding is no token", needs={"perplexity"}, choice=choices())
def test_padding_counts_for_no_code(implementation, choice):
    """Indices of −1, those of padding, leave the perplexity as it is."""
    indices, size = choice
    padded = np.concatenate([np.full(2, -1), indices])
    value = implementation.auxiliary.perplexity(padded, size)
    # the same counts, and so the same operations
    assert_within("perplexity", value, implementation.auxiliary.perplexity(indices, size), 0.0)
