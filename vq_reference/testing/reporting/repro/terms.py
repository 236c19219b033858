"""The script of a law about an auxiliary term: it asks for the term alone, for what the law asked it of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vq_reference.testing.adapters.codegen.run_script import NO_EXCEPTION
from vq_reference.testing.adapters.codegen.source import NoScript, exactly
from vq_reference.testing.adapters.torch.auxiliary_terms import reference_terms
from vq_reference.testing.interface.implementation import Implementation
from vq_reference.testing.laws.assertions import LawBroken
from vq_reference.testing.reporting.repro.ends import Told, comparisons, tried

# a term → what it is asked of, in the order of `Auxiliary`
GIVEN = {
    "diversity": ("x", "leading", "codes", "temperature"),
    "orthogonality": ("codes",),
    "perplexity": ("indices", "codebook_size"),
    "usage": ("indices", "codebook_size"),
}
GRADIENTS = {"gradient at x": "gradient(value, x)", "gradient at the codes": "gradient(value, codes)"}


def term_script(
    opening: str, tested: Implementation, asked: Sequence[tuple[str, tuple[Any, ...]]], error: Exception
) -> str:
    """Return the script for a law that ended with `error` after it had asked for these terms. Raises NoScript."""
    write = None if tested.auxiliary is None else tested.auxiliary.script
    right = reference_terms().script
    if write is None or right is None:
        raise NoScript(f"the adapter of {tested.name} has none for its terms")
    reason = NoScript("the law asked for no term")
    for name, given in reversed(asked):
        held = "\n".join(_given(name, given, tested.precision.name))
        told = Told(*(f"{opening}{held}\n{each(name)}\n" for each in (write, right)))
        try:
            return tried(told, _ends(told, error), error)
        except NoScript as why:
            reason = why
    raise reason


def _given(name: str, given: tuple[Any, ...], dtype: str) -> Iterator[str]:
    for each, value in zip(GIVEN[name], given, strict=True):
        if not isinstance(value, np.ndarray):
            yield f"{each} = {value!r}"
        elif value.dtype.kind == "f":
            yield f"{each} = {exactly(value)}.to(torch.{dtype}).requires_grad_()"
        else:
            yield f"{each} = torch.tensor({value.tolist()})"


def _ends(told: Told, error: Exception) -> Iterator[str]:
    if isinstance(error, LawBroken):
        yield from comparisons(told, GRADIENTS.get(error.what, "value"), error)
    elif isinstance(error, AssertionError):
        raise NoScript("what the law compares is no number")
    else:
        yield NO_EXCEPTION
