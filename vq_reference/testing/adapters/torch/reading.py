"""How a module is called and decodes, as declared: where its tensors lie, and where what sits in what it returns.

A script holds the text of the functions without an underscore: of ours they use only one another.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vq_reference.testing.adapters.torch.layer import Layouts
from vq_reference.testing.adapters.torch.layout import Layout
from vq_reference.testing.adapters.torch.stateful_layer import Given

LAYERS = "layers"  # the axis of a stack's layers


class Reading(NamedTuple):
    """How a declared module is called, and how it decodes: what `Access` needs of both."""

    call: Callable[..., Given]
    decode: Callable[[nn.Module, Tensor], Tensor] | None


def reading_of(
    layouts: Layouts,
    places: Sequence[Any],
    call: Callable[..., Any] | None,
    decode: str | Callable[[Any, Tensor], Tensor] | None,
    names: Sequence[str] = (),
    summed: int | None = None,
    freeze: Callable[[Any], object] | None = None,
    stacked: bool = False,
) -> Reading:
    """Return how a module is used whose tensors lie so.

    names: its arguments for a mask and for lengths. summed: D where the loss is a sum over the entries of tokens of
    that width, 0 for the width of the input, None for a mean. stacked: the 1 of the indices' layout is the axis of a
    stack's layers. Raises ValueError for a stack whose indices have none, or several.
    """
    rank = 2 if layouts.x.any_rank else len(layouts.x.leading)
    tokens, outputs, chosen = (each.spelled(rank) for each in (layouts.x, layouts.output, layouts.indices))
    if stacked and [len(axis) for axis in chosen.axes].count(0) != 1:
        raise ValueError(f"indices is {str(layouts.indices)!r}: expected, with a stack, 1 for the axis of the layers")
    lying: dict[str, Any] = {
        "names": list(tokens.leading),
        "output_axes": _axes(outputs),
        "index_axes": _axes(chosen, stacked),
    }
    used = partial(call_declared, call=call, places=list(places), told=list(names), summed=summed, freeze=freeze)
    return Reading(
        partial(used, axes=_axes(tokens), **lying),
        None if decode is None else partial(decode_declared, decode=decode, **lying),
    )


def _axes(layout: Layout, stacked: bool = False) -> list[list[str]]:
    """Return the names on each axis, and that of the layers on an axis that has none, for a stack."""
    return [list(axis) or ([LAYERS] if stacked else []) for axis in layout.axes]


def call_declared(
    module: Any,
    x: Tensor,
    mask: Tensor | None,
    lengths: Tensor | None,
    call: Any,
    names: Any,
    axes: Any,
    output_axes: Any,
    index_axes: Any,
    places: Any,
    told: Any,
    summed: Any,
    freeze: Any,
) -> Given:
    """Call a module with tokens (B, T, D) as it takes them, which lie as `axes` says: B first, T last, between them 1.

    told: names of its arguments for a mask, after ~ for one that is True at padding, and for lengths. summed: the width
    of tokens, if the loss is no mean.
    """
    if freeze is not None:
        freeze(module)
    sizes = sizes_of(names, x.shape[0], x.shape[1], x.shape[2])
    order = [*names, "D"]
    given: Any = {}
    if mask is not None:
        there = arranged(mask, [each for each in axes if each != ["D"]], names, sizes)
        given = {told[0].removeprefix("~"): ~there if told[0].startswith("~") else there}
    given = given if lengths is None else {**given, told[1]: lengths}
    lying = arranged(x, axes, order, sizes)
    returned = module(lying, **given) if call is None else call(module, lying, **given)
    found: Any = [None if place is None else found_at(returned, place) for place in places]
    output, indices, losses = found
    output = restored(output, output_axes, order, sizes).reshape(x.shape)
    stacked = ["layers"] in index_axes
    several = [indices.numel() // max(x[..., 0].numel(), 1)] if stacked else []
    kept = [*names, "layers"] if stacked else names
    chosen = restored(indices, index_axes, kept, {**sizes, "layers": several[0] if stacked else 1})
    if losses is None:
        losses = x.new_zeros(several)
    losses = losses if isinstance(losses, Tensor) else torch.stack(list(losses))
    losses = losses.reshape([-1] if stacked else [])
    present = mask if lengths is None else lengths
    count = x[..., 0].numel() if present is None else max(int(present.sum()), 1)
    return Given(
        output,
        chosen.reshape(*x.shape[:-1], *several),
        losses if summed is None else losses / (count * (summed or x.shape[-1])),
    )


def decode_declared(module: Any, indices: Tensor, decode: Any, names: Any, output_axes: Any, index_axes: Any) -> Tensor:
    """Decode indices, (1, T), or (1, T, layers) of a stack, as a module takes them; return the outputs, (1, T, D)."""
    stacked = ["layers"] in index_axes
    indices = indices if stacked or indices.ndim == 2 else indices[..., 0]
    order = [*names, "layers"] if stacked else names
    sizes, left = {}, indices.shape[1]
    flattened = any(len(axis) > 1 for axis in index_axes)
    for name in names[:-1]:  # none is 1 where it can be helped, so that swapped axes show
        sizes[name] = next((n for n in range(2, int(left**0.5) + 1) if left % n == 0 and not flattened), 1)
        left //= sizes[name]
    sizes = {**sizes, names[-1]: left, "layers": indices.shape[-1]}
    lying = arranged(indices, index_axes, order, sizes)
    outputs: Tensor = getattr(module, decode)(lying) if isinstance(decode, str) else decode(module, lying)
    sizes = {**sizes, "D": outputs.numel() // max(indices.shape[1], 1)}
    return restored(outputs, output_axes, [*names, "D"], sizes).reshape(1, indices.shape[1], -1)


def sizes_of(names: Any, first: int, last: int, dim: int) -> Any:
    """Return the size of each leading dimension of first × last tokens: those between the first and the last are 1."""
    if len(names) == 1:
        return {names[0]: first * last, "D": dim}
    return {**dict.fromkeys(names, 1), names[0]: first, names[-1]: last, "D": dim}


def arranged(values: Tensor, axes: Any, names: Any, sizes: Any) -> Tensor:
    """Return values, whose dimensions are `names` in order, lying as `axes` says: the names on each axis."""
    flat = [name for axis in axes for name in axis]
    whole = values.reshape([sizes[name] for name in names]).permute([names.index(name) for name in flat])
    return whole.reshape([torch.Size([sizes[name] for name in axis]).numel() for axis in axes])


def restored(lying: Tensor, axes: Any, names: Any, sizes: Any) -> Tensor:
    """Return what lies as `axes` says with its dimensions in the order of `names`."""
    flat = [name for axis in axes for name in axis]
    return lying.reshape([sizes[name] for name in flat]).permute([flat.index(name) for name in names])


def evaluated(module: Any) -> None:
    """Put a module in eval mode."""
    module.eval()


def found_at(returned: Any, place: Any) -> Any:
    """Return what sits at a place: a position, a key, an attribute, or a path of those."""
    if callable(place):
        return place(returned)
    steps: Any = [place] if isinstance(place, (int, str)) else place
    for step in steps:
        returned = returned[step] if isinstance(step, int) or isinstance(returned, dict) else getattr(returned, step)
    return returned


def reached(module: Any, path: str) -> Any:
    """Return what lies at a path, (..., D, K) with ".T" behind it as (..., K, D)."""
    found: Any = module
    for step in path.removesuffix(".T").split("."):
        found = getattr(found, step)
    return found.mT if path.endswith(".T") else found


def codes_at(module: Any, path: str) -> Any:
    """Return the codes, (1, K, D)."""
    found = reached(module, path)
    return found.reshape(1, *found.shape[-2:])


def codes_turned(module: Any, path: str, by: Any) -> Any:
    """Return the codes, (1, K, D), where a projection has turned them: those that lie there, times P."""
    found = codes_at(module, path)
    return found @ torch.tensor(by).to(found)


def codes_through(module: Any, frozen: str, linear: str) -> Any:
    """Return the codes, (1, K, D), that a layer makes of frozen ones."""
    return module.get_submodule(linear)(reached(module, frozen))[None]


def statistics_at(module: Any, counts: str, sums: str) -> Any:
    """Return counts and sums of the one codebook."""
    return [(reached(module, counts).reshape(-1), codes_at(module, sums)[0])]


def codes_of_layers(module: Any, path: str) -> Any:
    """Return the codes of all layers, (L, K, D): they lie at one path, or each at its own, with * for its number."""
    if "*" not in path:
        return reached(module, path)
    tables = [codes_at(module, path.replace("*", "0"))[0]]
    with contextlib.suppress(AttributeError):  # as many as there are
        while True:
            tables.append(codes_at(module, path.replace("*", str(len(tables))))[0])
    return torch.stack(tables)
