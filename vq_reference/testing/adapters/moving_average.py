"""A user's module whose codes are moving averages, as a layer that lasts: from the names of what it keeps."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vq_reference.testing.adapters.declaration import DeclarationContradicted
from vq_reference.testing.adapters.lasting import Averaging, Lasting, LastingLayer, Wanted
from vq_reference.testing.adapters.lasting_torch import CARRY, Access, Given, LastingTorch, constructing
from vq_reference.testing.adapters.layout import CHANNEL, Layout
from vq_reference.testing.adapters.torch_layer import Layouts
from vq_reference.vector_quantize import VectorQuantize

Make = Callable[[int, int, float], nn.Module]


@dataclass(frozen=True)
class MovingAverage:
    """What a module with such codes keeps between calls, each by its path in the module ("codebook.cluster_size").

    counts: buffer of N, (K,). sums: buffer of m, (K, D), or (D, K) with ".T" behind it; either with axes of size 1
    before. decay: attribute γ: N ← γN + (1 − γ)n. epsilon: attribute ε of the Laplace smoothing; None where there is
    none. One that is a constant in the code cannot be described: make it an attribute.
    replace_below: attribute τ, the count below which a code is replaced; None where codes are not.
    initialised: attribute or buffer that is false until the codes are taken from data; None where they are not.
    mask: the argument of forward for a mask that is True at tokens. lengths: the one for lengths. Both may be None.
    ranks: whether the processes of a group share it, and sum counts and sums; laws start processes then, for seconds.
    padded_output, padded_index: what comes out of padding, and its index; None where nothing is promised of that.

    >>> MovingAverage("counts", "sums", "decay", mask="mask").capabilities == {"lasting", "ema", "checkpoint", "mask"}
    True
    """

    counts: str
    sums: str
    decay: str
    epsilon: str | None = None
    replace_below: str | None = None
    initialised: str | None = None
    mask: str | None = None
    lengths: str | None = None
    ranks: bool = False
    padded_output: Literal["zero", "input"] = "zero"
    padded_index: int | None = -1

    @property
    def capabilities(self) -> set[str]:
        """What laws find by these names."""
        named = {
            "smoothing": self.epsilon,
            "replace": self.replace_below,
            "initialise_from_data": self.initialised,
            "mask": self.mask,
            "lengths": self.lengths,
        }
        shared = {"ranks", "ranks_equal_one"} if self.ranks else set()
        return {
            "lasting",
            "ema",
            "checkpoint",
            *(capability for capability, name in named.items() if name is not None),
            *shared,
        }


def lasting_of(average: MovingAverage, make: Make, codes: str, reading: Reading, loss_in_eval: bool) -> Lasting:
    """Return how layers of a user's module are made.

    make: dim, codebook_size, weight of the encoder half → module. codes: path of the codes. reading: of
    `reading_of`. Raises DeclarationContradicted where a name does not fit the module.
    """
    access = Access(
        reading.call,
        partial(codes_at, path=codes),
        reading.decode,
        statistics=partial(statistics_at, counts=average.counts, sums=average.sums),
    )

    def build(wanted: Wanted) -> LastingLayer:
        layer, averaging = wanted.layer, wanted.averaging or Averaging()
        _, size, dim = layer.codes.shape
        with constructing(wanted):
            module = make(dim, size, layer.commitment_weight * layer.beta)
        _set(module, average, averaging)
        if wanted.placed:
            _place(module, average, codes, layer.codes[0], averaging.replace_below or 1.0)
        return LastingTorch(module, access)

    _require_that_it_moves(build, average)
    return Lasting(
        build,
        CARRY,
        padded_output=average.padded_output,
        padded_index=average.padded_index,
        loss_in_eval=loss_in_eval,
    )


class Reading(NamedTuple):
    """How a declared module is called, and how it decodes: what `Access` needs of both."""

    call: Callable[..., Given]
    decode: Callable[[nn.Module, Tensor], Tensor] | None


def reading_of(
    average: MovingAverage,
    layouts: Layouts,
    places: Sequence[Any],
    call: Callable[..., Any] | None,
    decode: str | Callable[[Any, Tensor], Tensor] | None,
    summed: bool,
) -> Reading:
    """Return how a module is used whose tensors lie so.

    Raises ValueError for channels that are neither last nor on axis 1, and for an output or indices in another order.
    """
    last = layouts.x.axes[-1] == (CHANNEL,)
    if not (last or layouts.x.channel_axis == 1):
        raise ValueError(f"x is {str(layouts.x)!r}: expected, with an average, channels last or on axis 1")
    if layouts.output != layouts.x:
        raise ValueError(
            f"output is {str(layouts.output)!r}: expected, with an average, that it lies as x, {layouts.x}"
        )
    rank = 2 if layouts.x.any_rank else len(layouts.x.leading)
    tokens, chosen = (each.spelled(rank) for each in (layouts.x.without_channel(), layouts.indices))
    if tokens.leading != chosen.leading:
        raise ValueError(f"indices is {str(layouts.indices)!r}: expected, with an average, the order of x, {layouts.x}")
    axis, leading = -1 if last else 1, _lying(tokens)
    names = [average.mask or "mask", average.lengths or "lengths"]
    return Reading(
        partial(call_declared, call=call, axis=axis, leading=leading, places=list(places), names=names, summed=summed),
        None if decode is None else partial(decode_declared, decode=decode, axis=axis, leading=_lying(chosen)),
    )


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
    """Decode indices, (1, T), as a module takes them; return the outputs, channels last."""
    lying = indices.reshape([1 if each in ("1", "B") else indices.numel() for each in leading])
    outputs: Tensor = getattr(module, decode)(lying) if isinstance(decode, str) else decode(module, lying)
    return outputs.movedim(axis, -1)


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


def _set(module: nn.Module, average: MovingAverage, averaging: Averaging) -> None:
    """Set γ, ε, τ and whether the codes are there."""
    values = {
        "decay": averaging.decay,
        "epsilon": averaging.epsilon,
        "replace_below": averaging.replace_below,
        "initialised": not averaging.initialise_from_data,
    }
    for name, value in values.items():
        path = getattr(average, name)
        if path is None:
            continue
        held = _held(module, name, path)
        if isinstance(held, Tensor):
            held.fill_(value)
        else:
            owner, _, attribute = path.rpartition(".")
            setattr(module.get_submodule(owner), attribute, value)


def _place(module: nn.Module, average: MovingAverage, codes: str, values: Any, count: float) -> None:
    """Set codes, and counts and sums that agree with them."""
    wanted = torch.as_tensor(np.array(values))
    with torch.no_grad():
        for name, path, factor in (("codebook", codes, 1.0), ("sums", average.sums, count)):
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


def _require_that_it_moves(build: Callable[[Wanted], LastingLayer], average: MovingAverage) -> None:
    """Call a layer once, so that a name of another buffer, or of no argument, is found before any law is."""
    codes = np.array([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.5]]])
    layer: Any = build(Wanted(VectorQuantize(codes), Averaging()))
    taken = inspect.signature(layer.module.forward).parameters
    for name in ("mask", "lengths"):
        argument = getattr(average, name)
        if layer.access.call.keywords["call"] is None and argument is not None and argument not in taken:
            raise DeclarationContradicted(f"average.{name}", repr(argument), f"forward({', '.join(taken)})")
    (before,) = layer.statistics()
    layer(np.array([[1.0, 0.25, 0.0], [1.0, 0.0, 0.25], [0.0, 1.0, 0.75], [0.75, 0.0, 0.0]]))
    (after,) = layer.statistics()
    for name in ("counts", "sums"):
        if np.array_equal(getattr(before, name), getattr(after, name)):
            what = "a buffer that a call in training leaves as it is"
            raise DeclarationContradicted(f"average.{name}", repr(getattr(average, name)), what)
