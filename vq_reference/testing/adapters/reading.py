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

from vq_reference.testing.adapters.lasting_torch import Given
from vq_reference.testing.adapters.layout import CHANNEL, Layout
from vq_reference.testing.adapters.torch_layer import Layouts


class Reading(NamedTuple):
    """How a declared module is called, and how it decodes: what `Access` needs of both."""

    call: Callable[..., Given]
    decode: Callable[[nn.Module, Tensor], Tensor] | None


def reading_of(
    layouts: Layouts,
    places: Sequence[Any],
    call: Callable[..., Any] | None,
    decode: str | Callable[[Any, Tensor], Tensor] | None,
    names: Sequence[str],
    summed: bool,
) -> Reading:
    """Return how a module with an average is used whose tensors lie so. names: its arguments for a mask and lengths.

    Raises ValueError for channels that are neither last nor on axis 1, and for an output or indices in another order.
    """
    axis, tokens, chosen = _laid(layouts, "an average")
    leading, given = _lying(tokens), list(names)
    return Reading(
        partial(call_declared, call=call, axis=axis, leading=leading, places=list(places), names=given, summed=summed),
        None if decode is None else partial(decode_declared, decode=decode, axis=axis, leading=_lying(chosen)),
    )


def stack_reading_of(
    layouts: Layouts,
    places: Sequence[Any],
    call: Callable[..., Any] | None,
    decode: str | Callable[[Any, Tensor], Tensor] | None,
    freeze: Callable[[Any], object] | None,
    summed: bool,
) -> Reading:
    """Return how a residual stack is used, as `reading_of`. The 1 of the indices' layout is the axis of the layers."""
    axis, tokens, chosen = _laid(layouts, "a stack")
    given = list(places)
    if [len(names) for names in chosen.axes].count(0) != 1:
        raise ValueError(f"indices is {str(layouts.indices)!r}: expected, with a stack, 1 for the axis of the layers")
    layers = chosen.axes.index(())
    lying = _lying(Layout(chosen.axes[:layers] + chosen.axes[layers + 1 :]))
    used = partial(call_stack_declared, call=call, axis=axis, leading=_lying(tokens), places=given, summed=summed)
    return Reading(
        partial(used, layers=layers, freeze=freeze),
        None
        if decode is None
        else partial(decode_stack_declared, decode=decode, axis=axis, leading=lying, layers=layers),
    )


def _laid(layouts: Layouts, beside: str) -> tuple[int, Layout, Layout]:
    """Return the axis of the channels, and where tokens and indices lie. Raises ValueError: `beside` what it is for."""
    last = layouts.x.axes[-1] == (CHANNEL,)
    if not (last or layouts.x.channel_axis == 1):
        raise ValueError(f"x is {str(layouts.x)!r}: expected, with {beside}, channels last or on axis 1")
    if layouts.output != layouts.x:
        raise ValueError(f"output is {str(layouts.output)!r}: expected, with {beside}, that it lies as x, {layouts.x}")
    rank = 2 if layouts.x.any_rank else len(layouts.x.leading)
    tokens, chosen = (each.spelled(rank) for each in (layouts.x.without_channel(), layouts.indices))
    if tokens.leading != chosen.leading:
        raise ValueError(f"indices is {str(layouts.indices)!r}: expected, with {beside}, the order of x, {layouts.x}")
    return -1 if last else 1, tokens, chosen


def _lying(tokens: Layout) -> list[str]:
    """Return how B·T tokens lie on each axis: the first leading dimension is B, the last T, any between them 1.

    >>> _lying(Layout.of("B H W")), _lying(Layout.of("(B H W)")), _lying(Layout.of("N"))
    (['B', '1', 'T'], ['BT'], ['BT'])
    """
    first, *_, last = tokens.leading * 2
    sizes = {**dict.fromkeys(tokens.leading, "1"), first: "B", last: "T"} if first != last else {first: "BT"}
    return ["".join(sizes[name] for name in axis).replace("1", "") or "1" for axis in tokens.axes]


def call_declared(
    module: Any,
    x: Tensor,
    mask: Tensor | None,
    lengths: Tensor | None,
    call: Any,
    axis: int,
    leading: Any,
    places: Any,
    names: Any,
    summed: bool,
) -> Given:
    """Call a module with tokens (B, T, D) as it takes them: lying as `leading` says, channels on `axis`."""
    sizes = {"1": 1, "B": x.shape[0], "T": x.shape[1], "BT": x.shape[0] * x.shape[1]}
    shape = [sizes[each] for each in leading]
    given = {} if mask is None else {names[0]: mask.reshape(shape)}
    given = given if lengths is None else {**given, names[1]: lengths}
    lying = x.reshape(*shape, x.shape[-1]).movedim(-1, axis)
    returned = module(lying, **given) if call is None else call(module, lying, **given)
    output, indices, loss = (found_at(returned, place) for place in places)
    told = mask if lengths is None else lengths
    tokens = x[..., 0].numel() if told is None else max(int(told.sum()), 1)
    loss = x.new_zeros(()) if loss is None else loss.reshape(()) / (tokens * x.shape[-1] if summed else 1)
    return Given(output.movedim(axis, -1).reshape(x.shape), indices.reshape(x.shape[:-1]), loss)


def decode_declared(module: Any, indices: Tensor, decode: Any, axis: int, leading: Any) -> Tensor:
    """Decode indices, (1, T), as a module takes them; return the outputs, (1, T, dim) where they lie as its output."""
    lying = indices.reshape([1 if each in ("1", "B") else indices.numel() for each in leading])
    outputs: Tensor = getattr(module, decode)(lying) if isinstance(decode, str) else decode(module, lying)
    outputs = outputs.movedim(axis, -1)
    return outputs.flatten(0, -2)[None] if outputs.ndim == lying.ndim + 1 else outputs


def call_stack_declared(
    module: Any,
    x: Tensor,
    mask: Tensor | None,
    lengths: Tensor | None,
    call: Any,
    axis: int,
    leading: Any,
    places: Any,
    summed: bool,
    layers: int,
    freeze: Any,
) -> Given:
    """Call a stack with tokens (B, T, D) as it takes them. layers: the axis of its layers in the indices."""
    if freeze is not None:
        freeze(module)
    sizes = {"1": 1, "B": x.shape[0], "T": x.shape[1], "BT": x.shape[0] * x.shape[1]}
    lying = x.reshape(*(sizes[each] for each in leading), x.shape[-1]).movedim(-1, axis)
    returned = module(lying) if call is None else call(module, lying)
    output, indices, losses = (found_at(returned, place) for place in places)
    chosen = indices.movedim(layers, -1).reshape(*x.shape[:-1], indices.shape[layers])
    losses = x.new_zeros(indices.shape[layers]) if losses is None else losses
    losses = losses if isinstance(losses, Tensor) else torch.stack(list(losses))
    losses = losses.reshape(-1) / (x.numel() if summed else 1)
    return Given(output.movedim(axis, -1).reshape(x.shape), chosen, losses)


def decode_stack_declared(module: Any, indices: Tensor, decode: Any, axis: int, leading: Any, layers: int) -> Tensor:
    """Decode indices, (1, T, L), as a stack takes them; return the outputs, as `decode_declared`."""
    count = indices.shape[1]
    lying = indices.reshape(*(1 if each in ("1", "B") else count for each in leading), -1).movedim(-1, layers)
    outputs: Tensor = getattr(module, decode)(lying) if isinstance(decode, str) else decode(module, lying)
    outputs = outputs.movedim(axis, -1)
    return outputs.flatten(0, -2)[None] if outputs.ndim == lying.ndim else outputs


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
