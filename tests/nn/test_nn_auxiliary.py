"""The torch auxiliary terms: dtypes, degenerate inputs, and what they refuse. Their numbers are the laws' business."""

import re

import numpy as np
import pytest
import torch

from vq_reference.nn.diversity import diversity
from vq_reference.nn.orthogonality import orthogonality
from vq_reference.nn.usage import perplexity, usage
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds_auxiliary

X, CODES = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)), torch.eye(5, 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_terms_are_computed_in_float32_at_least(dtype):
    wide = torch.promote_types(dtype, torch.float32)
    assert diversity(X.to(dtype), CODES.to(dtype), 1.0).dtype is wide
    assert orthogonality(CODES.to(dtype)).dtype is wide


def test_a_token_on_a_code_and_a_choice_that_is_hard_leave_the_gradient_finite():
    x, codes = CODES[:2].clone().requires_grad_(), CODES.clone().requires_grad_()
    for gradient in torch.autograd.grad(diversity(x, codes, 1e6), (x, codes)):
        assert gradient.isfinite().all()


def test_a_single_token_needs_no_leading_dimension():
    assert torch.equal(diversity(X[0, 0], CODES, 1.0), diversity(X[:1, :1], CODES, 1.0))


def test_a_code_of_length_zero_has_no_gradient_and_leaves_the_others_theirs():
    codes = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(orthogonality(codes), codes)
    assert not gradient[0].any()
    assert gradient[1:, 1].all()


def test_counts_stay_exact_beyond_what_float32_can_count():
    indices = torch.zeros(2**24 + 8, dtype=torch.int8)
    indices[:8] = 1
    shares = np.array([len(indices) - 8, 8]) / len(indices)
    expected = np.exp(-np.sum(shares * np.log(shares)))
    assert_within("perplexity", perplexity(indices, 2).item(), expected, bounds_auxiliary.perplexity(shares, 2.0**-24))


def test_without_tokens_nothing_is_used_and_perplexity_is_no_number():
    nothing = torch.tensor([-1, -1])
    assert usage(nothing, 4).item() == 0.0
    assert perplexity(nothing, 4).isnan()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: diversity(X[:0], CODES, 1.0), ValueError, "x is (0, 3, 4), codes is (5, 4): expected"),
        (lambda: diversity(X[..., :2], CODES, 1.0), ValueError, "x is (2, 3, 2), codes is (5, 4): expected"),
        (lambda: diversity(X, CODES, -1.0), ValueError, "temperature is -1.0: expected a finite number, 0 or more"),
        (lambda: orthogonality(X), ValueError, "codes has shape (2, 3, 4): expected (K, D)"),
        (lambda: perplexity(X, 4), TypeError, "indices has dtype torch.float32: expected an integer dtype"),
        (lambda: usage(torch.tensor([0, 4]), 4), ValueError, "indices hold 4: expected less than codebook_size, 4"),
    ],
)
def test_an_argument_that_cannot_be_used_is_named(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()
