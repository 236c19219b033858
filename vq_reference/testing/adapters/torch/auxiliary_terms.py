"""Auxiliary terms that are torch functions: our own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vq_reference.arguments import Array
from vq_reference.nn import diversity, orthogonality, usage
from vq_reference.testing.adapters.torch.tensors import array_of
from vq_reference.testing.interface.auxiliary import Auxiliary, Term

SCRIPTS = {
    "diversity": "from vq_reference.nn.diversity import diversity\n"
    "value = diversity(x.reshape(*leading, -1), codes, temperature)",
    "orthogonality": "from vq_reference.nn.orthogonality import orthogonality\nvalue = orthogonality(codes)",
    "perplexity": "from vq_reference.nn.usage import perplexity\nvalue = perplexity(indices, codebook_size)",
    "usage": "from vq_reference.nn.usage import usage\nvalue = usage(indices, codebook_size)",
}


def reference_terms(dtype: torch.dtype = torch.float32) -> Auxiliary:
    """Return those of `vq_reference.nn`."""

    def of_tokens(x: Array, leading: tuple[int, ...], codes: Array, temperature: float) -> Term:
        return differentiated(
            lambda x, codes: diversity.diversity(x.reshape(*leading, -1), codes, temperature), x, codes, dtype
        )

    def of_codes(codes: Array) -> Term:
        return differentiated(lambda x, codes: orthogonality.orthogonality(codes), codes[:0], codes, dtype)

    def of_indices(count: Callable[[Tensor, int], Tensor]) -> Callable[[Array, int], float]:
        return lambda indices, codebook_size: count(torch.as_tensor(indices), codebook_size).item()

    perplexity, share = of_indices(usage.perplexity), of_indices(usage.usage)
    return Auxiliary(of_tokens, of_codes, perplexity, share, SCRIPTS.__getitem__)


def differentiated(term: Callable[[Tensor, Tensor], Tensor], x: Array, codes: Array, dtype: torch.dtype) -> Term:
    """Return what a function of x and codes, a scalar, gives for them, with its gradients."""
    leaves = [torch.tensor(values, dtype=dtype, requires_grad=True) for values in (x, codes)]
    value = term(*leaves)
    at_x, at_codes = (
        None if grad is None else array_of(grad) for grad in torch.autograd.grad(value, leaves, allow_unused=True)
    )
    return Term(value.item(), at_x, at_codes)
