"""The script of a torch module or function, from its declaration: constructor, state, call, and where what sits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vq_reference.arguments import Array
from vq_reference.simvq import SimVQ
from vq_reference.testing.adapters.codegen import source
from vq_reference.testing.adapters.codegen.constructor import constructed
from vq_reference.testing.adapters.codegen.run_script import run
from vq_reference.testing.adapters.torch.layer import Arranged, Layouts, TorchLayer
from vq_reference.testing.adapters.torch.layout import CHANNEL, Layout
from vq_reference.testing.adapters.torch.places import Place
from vq_reference.testing.interface.implementation import Call
from vq_reference.testing.interface.torch_source import Written

Script = Callable[[SimVQ, Array, Call], Written]


def module_script(
    built: Callable[[SimVQ], TorchLayer],
    make: Callable[[SimVQ], nn.Module],
    instance: nn.Module | None,
    places: tuple[Place, Place | None, Place | None],
    call: Callable[[Any, Tensor], Any] | None,
    decode: str | Callable[[Any, Tensor], Tensor] | None,
) -> Script:
    """Return what writes the script of a module: the wanted layer, x, (N, D), and how it is called → lines.

    built: the layer that the laws see. make: the module as its constructor makes it; instance: in place of that.
    places: of output, indices and loss in what the forward returns. call, decode: as in `torch_quantizer`.
    """

    def script(reference: SimVQ, x: Array, how: Call) -> Written:
        layer = built(reference)
        arranged = Arranged.of(layer.layouts, x.shape, how.leading)
        fresh: Any = None
        if instance is None:
            begin = constructed(lambda: make(reference))
            with torch.random.fork_rng(devices=()):
                fresh = run("\n".join(["import sys", *begin])).names.get("layer")
            begin += source.differing(layer.module, fresh)
        else:
            begin = ["import copy", *source.named(instance), "layer = copy.deepcopy(found)"]
        held = source.state(layer.module, source.empty_caches(layer.module, fresh))
        defined, entered = ([], "layer(entering)") if call is None else source.function(call)
        entered = entered if call is None else f"{entered}(layer, entering)"
        read, expressions = _read(places)
        mode = source.changed(layer.module.train(how.training), layer.freeze)
        lying, restored = called(arranged, how, entered, expressions)
        return Written(
            source.lines_of(
                begin,
                source.converted(layer.module, make(reference), layer.dtype),
                held,
                [*defined, *read],
                _at_codes(layer),
            ),
            source.lines_of(["layer.train()" if how.training else "layer.eval()", *mode], lying),
            source.lines_of(restored, [f"codes = {source.exactly(reference.codebook)}.to(x.dtype)"]),
            None if decode is None else lambda count: _decoded(decode, layer.layouts, x.shape[1], count),
        )

    return script


def called(
    arranged: Arranged, how: Call, entered: str, expressions: tuple[str, str, str]
) -> tuple[list[str], list[str]]:
    """Return the lines of one call, and those that read what it returned.

    entered: the call of `entering`. expressions: for output, indices and loss in `returned`; "" for what there is not.
    """
    output, indices, loss = expressions
    begin = f"returned = {entered}"
    lying = [
        *_entering(arranged, how),
        *([begin] if how.gradient != "no_grad" else ["with torch.no_grad():", f"    {begin}"]),
        f"lying = ({output}, {indices or None}, {loss or None})",
    ]
    layouts = arranged.layouts
    there = {"lying[0]": layouts.output, "lying[1]": layouts.indices, "entering": layouts.x}
    whole, chosen, after = (back(what, list(arranged.order), layout, arranged.sizes) for what, layout in there.items())
    read = [
        f"output = {whole}",
        *([f"indices = {chosen}.long()"] if indices else []),
        "loss = lying[2].sum()" if loss else "loss = torch.zeros(())",
        f"after = {after}",
    ]
    return lying, read


def _decoded(decode: str | Callable[[Any, Tensor], Tensor], layouts: Layouts, dim: int, count: int) -> str:
    if isinstance(decode, str):
        return decoding(f"layer.{decode}(entering)", layouts, dim)(count)
    defined, name = source.function(decode)
    return source.lines_of(defined, [decoding(f"{name}(layer, entering)", layouts, dim)(count)])


def decoding(entered: str, layouts: Layouts, dim: int) -> Callable[[int], str]:
    """Return what writes the decoding of so many indices. entered: that of `entering`, the indices as they lie."""

    def lines(count: int) -> str:
        arranged = Arranged.of(layouts, (count, dim), layouts.leading_of_indices(count))
        order = list(arranged.order)
        lying = permuted("chosen", order[:-1], arranged.layouts.indices, arranged.sizes)
        decoded = back(f"{entered}", order, arranged.layouts.output, arranged.sizes)
        return f"entering = {lying}\ndecoded = {decoded}"

    return lines


def _entering(arranged: Arranged, how: Call) -> list[str]:
    """Return the lines that make of x `entering`, the input as the call takes it."""
    layout, order, sizes = arranged.layouts.x, list(arranged.order), arranged.sizes
    if how.memory == "expanded":
        one = {name: size if name == CHANNEL else 1 for name, size in sizes.items()}
        shared = f"{permuted('x[:1]', order, layout, one)}.clone().expand{layout.shape(sizes)}"
        return [f"entering = {shared}.detach().requires_grad_()  # one token, its memory shared by all"]
    strided = ["entering = torch.stack([entering, entering], dim=-1)[..., 0]  # not contiguous"]
    return [
        f"entering = {permuted('x', order, layout, sizes)}",
        *(strided if how.memory == "strided" else []),
        *(["entering = entering.detach()"] if how.gradient != "asked" else []),
    ]


def _read(places: tuple[Place, Place | None, Place | None]) -> tuple[list[str], tuple[str, str, str]]:
    """Return definitions, and an expression for each place in `returned`; empty for what there is not."""
    lines: list[str] = []
    expressions = []
    for place in places:
        if callable(place):
            defined, name = source.function(place)
            lines += defined
            expressions.append(f"{name}(returned)")
        elif place is None:
            expressions.append("")
        else:
            steps = (place,) if isinstance(place, (int, str)) else place
            expressions.append("at(returned" + "".join(f", {step!r}" for step in steps) + ")")
    helper = [
        "def at(found, *steps):",
        "    for step in steps:",
        "        found = found[step] if isinstance(step, int) or isinstance(found, dict) else getattr(found, step)",
        "    return found",
    ]
    output, indices, loss = expressions
    return [*(helper if any("at(" in each for each in expressions) else []), *lines], (output, indices, loss)


def permuted(what: str, order: list[str], layout: Layout, sizes: Any) -> str:
    """Return `what`, (N, D), laid out as the layout says."""
    lying = [name for axis in layout.axes for name in axis]
    turned = "" if lying == order else f".permute{tuple(order.index(name) for name in lying)}"
    shaped = layout.shape(sizes)
    again = "" if shaped == tuple(sizes[name] for name in lying) else f".reshape{shaped}"
    return f"{what}.reshape{tuple(sizes[name] for name in order)}{turned}{again}.contiguous()"


def back(what: str, order: list[str], layout: Layout, sizes: Any) -> str:
    """Return `what`, which lies as the layout says, as (N, D), or (N,) where it has no channels."""
    lying = [name for axis in layout.axes for name in axis]
    wanted = [name for name in order if name in lying]
    turned = "" if lying == wanted else f".permute({', '.join(str(lying.index(name)) for name in wanted)})"
    end = f"(-1, {sizes[CHANNEL]})" if CHANNEL in lying else "(-1)"
    return f"{what}.reshape({', '.join(str(sizes[name]) for name in lying)}){turned}.reshape{end}"


def _at_codes(layer: TorchLayer) -> list[str]:
    """Return the definition of the gradient at the effective codes, (K, D), where they are a tensor of the module."""
    held = [*layer.module.named_parameters(), *layer.module.named_buffers()]
    name = next((name for name, tensor in held if tensor is layer.codes), None)
    if name is None:
        return []
    turned = ".T" if layer.codes_transposed else ""
    if layer.codes_turned is not None:
        turned += f" @ torch.tensor({layer.codes_turned.tolist()}, dtype=arrived.dtype)"
    return [
        "def at_codes(start):",
        f"    arrived = gradient(start, named[{name!r}])",
        f"    return arrived.reshape(-1, *arrived.shape[-2:]).sum(dim=0){turned}",
    ]
