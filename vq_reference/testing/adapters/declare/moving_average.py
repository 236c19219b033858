"""What a module with an EMA codebook keeps between calls: its names, setting it, and whether it moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vq_reference.testing.adapters.torch.reading import reached
from vq_reference.testing.adapters.torch.tensors import array_of
from vq_reference.testing.interface.errors import DeclarationContradicted
from vq_reference.testing.interface.stateful import Averaging, LastingLayer, Wanted
from vq_reference.vector_quantize import VectorQuantize


@dataclass(frozen=True)
class MovingAverage:
    """What a module with such codes keeps between calls, each by its path in the module ("codebook.cluster_size").

    counts: buffer of N, (K,). sums: buffer of m, (K, D), or (D, K) with ".T" behind it; either with axes of size 1
    before. decay: attribute γ: N ← γN + (1 − γ)n. epsilon: attribute ε of the Laplace smoothing; None where there is
    none. One that is a constant in the code cannot be described: make it an attribute.
    replace_below: attribute τ, the count below which a code is replaced; None where codes are not.
    initialised: attribute or buffer that is false until the codes are taken from data; None where they are not.
    bias_counter: attribute or buffer that counts steps, by which a module rids its averages of the bias of their start
    (N/(1 − γ^t), as Adam); it is set so high that nothing is left of that. None where there is none.
    ranks: whether the processes of a group share it; laws start processes then, for seconds. ranks_add_up: whether they
    add up counts and sums, so that a step is that of one process with all tokens; False where they average them.

    >>> MovingAverage("counts", "sums", "decay", epsilon="eps").capabilities == {"ema", "smoothing"}
    True
    """

    counts: str
    sums: str
    decay: str
    epsilon: str | None = None
    replace_below: str | None = None
    initialised: str | None = None
    bias_counter: str | None = None
    ranks: bool = False
    ranks_add_up: bool = True

    @property
    def capabilities(self) -> set[str]:
        """What laws find by these names."""
        named = {
            "smoothing": self.epsilon,
            "replace": self.replace_below,
            "initialise_from_data": self.initialised,
            "ranks": self.ranks or None,
            "ranks_equal_one": (self.ranks and self.ranks_add_up) or None,
        }
        return {"ema", *(offered for offered, name in named.items() if name is not None)}


def set_through_averages(average: MovingAverage, module: nn.Module, codes: Tensor) -> None:
    """Set codes, (K, D), that a module computes as m/N, by its sums and counts."""
    place_averages(module, average, None, array_of(codes), 1.0)


def mark_initialised(module: nn.Module, average: MovingAverage) -> None:
    """Say to a module that its codes are there, so that its first batch does not replace those that are set."""
    set_averaging(module, MovingAverage("", "", "", initialised=average.initialised), Averaging())


def set_averaging(module: nn.Module, average: MovingAverage, averaging: Averaging) -> None:
    """Set γ, ε, τ and whether the codes are there."""
    values = {
        "decay": averaging.decay,
        "epsilon": averaging.epsilon,
        "replace_below": averaging.replace_below,
        "initialised": not averaging.initialise_from_data,
        "bias_counter": 2**20,
    }
    for name, value in values.items():
        path = getattr(average, name)
        if not path:
            continue
        held = _held(module, name, path)
        if isinstance(held, Tensor):
            held.fill_(value)
        else:
            owner, _, attribute = path.rpartition(".")
            setattr(module.get_submodule(owner), attribute, value)


def place_averages(module: nn.Module, average: MovingAverage, codes: str | None, values: Any, count: float) -> None:
    """Set codes, where they are stored, and counts and sums that agree with them."""
    wanted = torch.as_tensor(np.array(values))
    with torch.no_grad():
        for name, path, factor in (("codebook", codes, 1.0), ("sums", average.sums, count)):
            if path is None:
                continue
            held = _held(module, name, path)
            if not isinstance(held, Tensor) or held.shape[-2:] != wanted.shape or held.numel() != wanted.numel():
                found = f"{tuple(held.shape)}, for codes of {tuple(wanted.shape)}" if isinstance(held, Tensor) else held
                raise DeclarationContradicted(f"average.{name}", repr(path), str(found), "(D, K): add .T")
            held.copy_((factor * wanted).expand(held.shape))
        counts = _held(module, "counts", average.counts)
        if not isinstance(counts, Tensor) or counts.numel() != len(wanted):
            found = f"{tuple(counts.shape)}, for {len(wanted)} codes" if isinstance(counts, Tensor) else str(counts)
            raise DeclarationContradicted("average.counts", repr(average.counts), found)
        counts.fill_(count)
    if codes is None:  # a module that caches its quotient has to forget it where a state is loaded
        module.load_state_dict(module.state_dict())


def _held(module: nn.Module, name: str, path: str) -> Any:
    """Return what lies at a declared path. Raises DeclarationContradicted that says what there is."""
    try:
        return reached(module, path)
    except AttributeError:
        buffers = [key for key, _ in module.named_buffers()]
        numbers = [
            f"{where}.{key}".removeprefix(".")
            for where, part in module.named_modules()
            for key, value in vars(part).items()
            if isinstance(value, (int, float)) and not key.startswith("_") and key != "training"
        ]
        there = ", ".join([*buffers, *numbers])
        raise DeclarationContradicted(f"average.{name}", repr(path), "nothing there", f"there are {there}") from None


def require_that_it_moves(build: Callable[[Wanted], LastingLayer], average: MovingAverage, path: str) -> None:
    """Call a layer once, so that a name of another buffer, or of no argument, is found before any law is."""
    codes = np.array([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.5]]])
    placed = build(Wanted(VectorQuantize(codes), Averaging())).codes()
    if placed.shape != codes.shape:
        raise DeclarationContradicted(
            "codebook", repr(path), f"{placed.shape[1:]}, for codes of (2, 3)", "(D, K): add .T"
        )
    if not np.allclose(placed, codes):
        what = "codes that are neither a parameter nor a buffer, nor sums ÷ counts as they are set"
        remedy = "a cache of them has to be dropped where a state_dict is loaded"
        raise DeclarationContradicted("codebook", repr(path), what, remedy)
    layer: Any = build(Wanted(VectorQuantize(codes), Averaging()))
    (before,) = layer.statistics()
    layer(np.array([[1.0, 0.25, 0.0], [1.0, 0.0, 0.25], [0.0, 1.0, 0.75], [0.75, 0.0, 0.0]]))
    (after,) = layer.statistics()
    for name in ("counts", "sums"):
        if np.array_equal(getattr(before, name), getattr(after, name)):
            what = "a buffer that a call in training leaves as it is"
            raise DeclarationContradicted(f"average.{name}", repr(getattr(average, name)), what)
