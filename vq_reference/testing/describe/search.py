"""Where things lie in a torch module that nobody has described: found by setting codes and seeing where they come out.

Codes that no initialisation would draw are written into one parameter or buffer after the other, tokens are handed in
in one layout after the other, and what comes back is searched for rows of those codes. Sizes are all different, so that
no wrong layout fits by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

import torch
from torch import Tensor, nn

from vq_reference.testing.adapters.torch.codebooks import BetweenProjections, ThroughLinear
from vq_reference.testing.adapters.torch.codes_at_path import set_codes
from vq_reference.testing.adapters.torch.layout import CHANNEL, Layout
from vq_reference.testing.adapters.torch.places import Path, outline, paths
from vq_reference.testing.describe.construct import CannotDescribe

LAYOUTS = ("B T D", "B D T", "B D H W", "B H W D", "N D")
# what modules call the projections before and behind the choice
PROJECTIONS = (("in_proj", "out_proj"), ("project_in", "project_out"), ("proj_in", "proj_out"))
MOVES = "its codes change in training"
Make = Callable[[], nn.Module]
Codebook: TypeAlias = "str | ThroughLinear | BetweenProjections"


@dataclass(frozen=True)
class Found:
    """Where everything lies.

    freeze: the submodule that must be in eval mode for the codes to stay, or None. layouts: of x, all that work.
    sizes: (D, K).
    """

    x: str
    codebook: Codebook
    output: str
    output_at: Path
    indices: str | None
    indices_at: Path | None
    scalars: tuple[Path, ...]
    unit_codes: bool
    freeze: str | None
    layouts: tuple[str, ...]
    sizes: tuple[int, int]


def search(make: Make, dim: int, codebook_size: int) -> Found:
    """Search a module of these sizes. Raises CannotDescribe that says how far the search came."""
    found: list[Found] = []
    said: list[str] = []
    moving: list[Codebook] = []
    for x in LAYOUTS:
        for codebook in _codebooks(make(), dim, codebook_size):
            for freeze in (None, *_around(codebook)):
                try:
                    hit = _look(make(), x, codebook, dim, codebook_size, freeze)
                except Exception as error:  # whatever a layout that does not fit makes a module do
                    said.append(f"x of {x}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
                    continue
                if isinstance(hit, Found):
                    found.append(hit)
                    break
                moving += [codebook] if hit == MOVES else []
                said.append(f"x of {x}, codes in {codebook}: {hit}")
            if found and found[-1].x == x:
                break
    if not found and moving:
        raise CannotDescribe(
            f"{MOVES}, and no module inside was found whose eval mode stops that. Write torch_quantizer(…, "
            f'codebook="{moving[0]}", freeze=…, average=MovingAverage(…)) yourself, as in docs/verify-your-own.md: '
            "freeze(module) keeps the codes as they are in training mode, or is module.eval() at worst"
        )
    if not found and not said:
        raise CannotDescribe(
            "no parameter and no buffer is one codebook of that K and D. A residual stack is described as its class, "
            "with one layer; or write torch_quantizer(…, stack=True) yourself, as in docs/verify-your-own.md"
        )
    if not found:
        raise CannotDescribe(
            "no output was found that holds its codes. Tried: " + "; ".join(dict.fromkeys(said)) + ". For codes "
            "that are computed in a way of their own write torch_quantizer(…, codebook=function) yourself"
        )
    return _general(found)


def _general(found: list[Found]) -> Found:
    """Return one finding for all layouts that work: any rank where several do."""
    fits = tuple(each.x for each in found)
    first = found[0]
    for text, layouts in (("... D", {"B T D", "B H W D", "N D"}), ("B D ...", {"B D T", "B D H W"})):
        if layouts <= set(fits):
            leading = text.replace(f" {CHANNEL}", "") if text.endswith(CHANNEL) else "B ..."
            as_x = all(each.output == each.x and each.indices in (None, _without(each.x)) for each in found)
            if as_x:
                indices = None if first.indices is None else leading
                return Found(**{**vars(first), "x": text, "output": text, "indices": indices, "layouts": fits})
    return Found(**{**vars(first), "layouts": fits})


def _codebooks(module: nn.Module, dim: int, codebook_size: int) -> Iterator[Codebook]:
    """Yield where the codes may lie: rows of a tensor, those named so first; behind a linear; between projections."""
    hits = []
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        shape = tuple(tensor.shape)[-2:]
        if not tensor.dtype.is_floating_point or tensor.ndim < 2 or any(s != 1 for s in tensor.shape[:-2]):
            continue
        if shape == (codebook_size, dim):
            hits.append(name)
        elif shape == (dim, codebook_size):
            hits.append(f"{name}.T")
    hits.sort(key=lambda name: not any(word in name for word in ("embed", "code")))
    square = [name for name, part in module.named_modules() if _is_square(part, dim)]
    pairs = [(a, b) for a, b in PROJECTIONS if a in square and b in square]
    yield from hits
    for name in hits:
        if not name.endswith(".T"):
            yield from (BetweenProjections(entering, name, leaving) for entering, leaving in pairs)
            # a projection of tokens is no transform of codes, though the output holds projected codes as well
            linears = [linear for linear in square if not name.startswith(f"{linear}.") and linear not in chain(*pairs)]
            yield from (ThroughLinear(name, linear) for linear in linears)


def _stored(codebook: Codebook) -> str:
    """Return the name of the tensor that the codes are kept in."""
    name = codebook if isinstance(codebook, str) else getattr(codebook, "codes", getattr(codebook, "frozen", ""))
    return name.removesuffix(".T")


def _around(codebook: Codebook) -> Iterator[str]:
    """Yield the modules around the codes, from the innermost out, but for the whole: eval mode is not training."""
    name = _stored(codebook)
    while name := name.rpartition(".")[0]:
        yield name


def _is_square(part: nn.Module, dim: int) -> bool:
    if isinstance(part, nn.Linear):
        return part.weight.shape == (dim, dim)
    return isinstance(part, (nn.Conv1d, nn.Conv2d)) and part.weight.shape[:2] == (dim, dim) == (
        dim,
        part.weight.numel() // dim,
    )


def _look(
    module: nn.Module, x: str, codebook: Codebook, dim: int, codebook_size: int, freeze: str | None
) -> Found | str:
    layout = Layout.of(x)
    taken = {dim, codebook_size}
    free = [size for size in (7, 5, 3, 11, 13, 9) if size not in taken]
    sizes = {name: 2 if name == "B" else free.pop(0) for name in layout.leading} | {CHANNEL: dim}
    order = (*layout.leading, CHANNEL)
    generator = torch.Generator().manual_seed(20)
    codes = _drawn(generator, codebook_size, dim)
    set_codes(module, codebook, codes)
    owner, _, attribute = _stored(codebook).rpartition(".")
    holder = module.get_submodule(owner)
    before = getattr(holder, attribute).detach().clone()
    module.train()
    if freeze is not None:
        module.get_submodule(freeze).eval()
    tokens = _drawn(generator, *[sizes[axis] for axis in order])
    returned = module(layout.arrange(tokens, order).requires_grad_())
    if not torch.equal(getattr(holder, attribute), before):
        return MOVES
    output = _output(returned, layout, order, sizes, codes)
    if output is None:
        return f"returned {outline(returned)}"
    output_at, output_layout, rows, unit = output
    indices_at, indices = _indices(returned, layout, order, sizes, rows, codebook_size)
    scalars = tuple(path for path, t in paths(returned) if t.numel() == 1 and t.dtype.is_floating_point)
    return Found(
        x,
        codebook,
        output_layout,
        output_at,
        indices,
        indices_at,
        scalars,
        unit,
        freeze,
        (x,),
        (dim, codebook_size),
    )


def _output(
    returned: object, layout: Layout, order: tuple[str, ...], sizes: dict[str, int], codes: Tensor
) -> tuple[Path, str, Tensor, bool] | None:
    """Return path, layout, chosen rows (in the tokens' order) and whether of unit length; one with a gradient first."""
    hits = []
    for path, tensor in paths(returned):
        for text in _orders(layout):
            lying = Layout.of(text)
            if not tensor.dtype.is_floating_point or tuple(tensor.shape) != lying.shape(sizes):
                continue
            tokens = lying.restore(tensor.detach(), order, sizes).reshape(-1, sizes[CHANNEL]).float()
            for unit in (False, True):
                held = nn.functional.normalize(codes, dim=-1) if unit else codes
                distances = torch.cdist(tokens, held, compute_mode="donot_use_mm_for_euclid_dist")
                near, rows = distances.min(dim=1)
                if near.max() <= torch.finfo(torch.float32).eps ** 0.5 * held.abs().max():
                    hits.append((not tensor.requires_grad, text != str(layout), path, text, rows, unit))
    if not hits:
        return None
    _, _, path, text, rows, unit = min(hits, key=lambda hit: hit[:2])
    return path, text, rows, unit


def _orders(layout: Layout) -> list[str]:
    """Return the layouts that an output may have: the tokens' own first, then the others of the same names."""
    names = set(layout.leading)
    others = [text for text in LAYOUTS if set(Layout.of(text).leading) == names and text != str(layout)]
    return [str(layout), *others, f"({' '.join(layout.leading)}) {CHANNEL}"]


def _indices(
    returned: object, layout: Layout, order: tuple[str, ...], sizes: dict[str, int], rows: Tensor, codebook_size: int
) -> tuple[Path | None, str | None]:
    plain, flat = _without(str(layout)), f"({' '.join(layout.leading)})"
    texts = dict.fromkeys((plain, flat, f"{plain} 1", f"1 {plain}", f"{flat} 1", f"1 {flat}"))
    for path, tensor in paths(returned):
        if tensor.dtype.is_floating_point or tensor.dtype == torch.bool:
            continue
        for text in texts:
            lying = Layout.of(text)
            if tuple(tensor.shape) == lying.shape(sizes):
                chosen = lying.restore(tensor, order[:-1], sizes).reshape(-1)
                if torch.equal(chosen.long(), rows):
                    return path, text
    return None, None


def _without(text: str) -> str:
    return str(Layout.of(text).without_channel())


def _drawn(generator: torch.Generator, *shape: int) -> Tensor:
    """Draw numbers that no initialisation would, and of which no two rows are alike."""
    return torch.randn(*shape, generator=generator) + 0.25
