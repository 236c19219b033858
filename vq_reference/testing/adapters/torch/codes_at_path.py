"""Codes at a path of a module: what lies there, and setting it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vq_reference.testing.adapters.torch.places import outline
from vq_reference.testing.adapters.torch.tensors import array_of, set_exactly
from vq_reference.testing.interface.errors import DeclarationContradicted


class Codes(NamedTuple):
    """What lies at a path, and whether it is computed anew at each look and so cannot be set."""

    found: Any
    computed: bool

    @classmethod
    def at(cls, module: nn.Module, path: str) -> Codes:
        """Look, without setting anything. None is found where nothing is."""
        # a view of a registered tensor is that tensor; listed before the look, which may register a cache
        stored = {each.untyped_storage().data_ptr() for each in [*module.parameters(), *module.buffers()]}
        found: Any = module
        for step in path.removesuffix(".T").split("."):
            found = getattr(found, step, None)
        return cls(found, isinstance(found, Tensor) and found.untyped_storage().data_ptr() not in stored)


def codes_of(module: nn.Module, path: str) -> Tensor:
    """Return the parameter or buffer at a path, as (..., K, D). Raises DeclarationContradicted."""
    named = [*module.named_parameters(), *module.named_buffers()]
    found, computed = Codes.at(module, path)
    if not isinstance(found, Tensor) or found.ndim < 2:
        there = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in named if tensor.ndim > 1)
        raise DeclarationContradicted("codebook", repr(path), f"{outline(found)}; there are {there or 'none'}")
    if computed:
        what = f"{outline(found)} that is neither a parameter nor a buffer"
        remedy = (
            "no optimizer, state_dict or .to() knows it: register it in the module, set the codes by a function, or "
            "give average= where they are sums ÷ counts"
        )
        raise DeclarationContradicted("codebook", repr(path), what, remedy)
    return found.mT if path.endswith(".T") else found


def converted(module: nn.Module, codebook: Any, dtype: torch.dtype) -> nn.Module:
    """Return the module in `dtype`: as it is where its codes have that, for what it keeps wider it keeps on purpose."""
    made = isinstance(codebook, str) and codes_of(module, codebook).dtype == dtype
    return module if made else module.to(dtype)


def set_codes(module: nn.Module, codebook: Any, codes: Tensor) -> Any:
    """Set the codes, (K, D), and return where their gradient arrives. codebook: as in `torch_quantizer`."""
    if callable(codebook):
        lies = codebook(module, codes)
        if isinstance(lies, Tensor) and lies.shape[-2:] != codes.shape:
            there = f"a tensor of {tuple(lies.shape)}, for codes of {tuple(codes.shape)}"
            remedy = "return one that holds the codes and nothing else, in their order; None where there is none"
            raise DeclarationContradicted("codebook", "a function", there, remedy)
        return lies
    target = codes_of(module, codebook)
    if target.shape[-2:] != codes.shape:
        found, wanted = tuple(target.shape), tuple(codes.shape)
        sizes = "hand wanted.codebook_dim and wanted.codebook_size to the module's constructor"
        other = "(K, D): leave out .T" if codebook.endswith(".T") else "(D, K): add .T"
        remedy = other if found[-2:] == wanted[::-1] else sizes
        raise DeclarationContradicted("codebook", repr(codebook), f"{found}, for codes of {wanted}", remedy)
    set_exactly(target, array_of(codes.expand(target.shape)))
    return codes_of(module, codebook.removesuffix(".T"))
