"""Layers of a declared module, with all that follows from being a torch module: kept, saved, copied, cast, compiled."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vq_reference.codebook import Layer
from vq_reference.estimators import Estimator
from vq_reference.simvq import SimVQ
from vq_reference.testing.adapters.declare.moving_average import MovingAverage, place_averages, set_averaging
from vq_reference.testing.adapters.torch.codebooks import BetweenProjections, ThroughLinear, Turned
from vq_reference.testing.adapters.torch.codes_at_path import set_codes
from vq_reference.testing.adapters.torch.reading import Reading, codes_at, codes_through, codes_turned, statistics_at
from vq_reference.testing.adapters.torch.stateful_layer import CARRY, SEED, Access, LastingTorch, cast_to
from vq_reference.testing.adapters.torch.tensors import array_of, set_exactly, turning
from vq_reference.testing.interface.errors import DeclarationContradicted
from vq_reference.testing.interface.stateful import Averaging, Carry, LastingLayer, Start, Use, Wanted
from vq_reference.vector_quantize import VectorQuantize

SIZES = 4, 3  # D and K of a layer that is made to see what it is
CASTS = ("float16", "bfloat16", "autocast", "float64")


class Unreadable(Exception):
    """Codes that a function has set, and that no name of the module leads to."""


class Asked(NamedTuple):
    """What `make` of `torch_quantizer` is asked for.

    dim: D of the input. codebook_size: K. estimator, beta (of the encoder half), commitment_weight (of the whole loss).
    layers: of a residual stack, 1 for everything else. codebook_dim: the width of codes; dim, but between projections.
    """

    dim: int
    codebook_size: int
    estimator: Estimator
    beta: float
    commitment_weight: float
    layers: int = 1
    codebook_dim: int = 0


@dataclass(frozen=True)
class Declared:
    """What was declared of a module, as its layers need it.

    made: what is asked for → the module, converted to `dtype`. codebook: path of its codes, or what sets them.
    computed: whether the module makes its codes of sums and counts, and keeps none. project_in, project_out: paths.
    sizes: (D, K) of an instance.
    """

    made: Callable[[Asked], nn.Module]
    codebook: Any
    reading: Reading
    estimator: Estimator
    dtype: torch.dtype
    average: MovingAverage | None = None
    computed: bool = False
    project_in: str | None = None
    project_out: str | None = None
    sizes: tuple[int, int] | None = None

    def build(self, wanted: Wanted) -> LastingLayer:
        """Return the layer that is wanted, its codes, statistics and projections placed."""
        layer = wanted.layer
        _, size, width = layer.codes.shape
        dim = width if layer.project_in is None else layer.project_in.weight.shape[1]
        asked = Asked(dim, size, self.estimator, layer.beta, layer.commitment_weight, codebook_dim=width)
        with torch.random.fork_rng(devices=()):
            # what is no code is drawn alike for layers of the same codes, which laws compare
            torch.default_generator.manual_seed(zlib.crc32(layer.codes.tobytes()) if wanted.placed else SEED)
            module = self.made(asked)
        if self.average is not None:
            set_averaging(module, self.average, wanted.averaging or Averaging())
        for path, affine in ((self.project_in, layer.project_in), (self.project_out, layer.project_out)):
            if path is not None:
                place_affine(module, path, affine or Layer(np.eye(width)))
        lies = self._place(module, wanted) if wanted.placed else None
        return LastingTorch(module, self._access(module, lies, width), self.dtype)

    def _place(self, module: nn.Module, wanted: Wanted) -> Any:
        """Set codes and statistics; return where the codes lie, if a function has set them."""
        codes = wanted.layer.codes[0]
        if self.average is not None:
            count = (wanted.averaging or Averaging()).replace_below or 1.0
            place_averages(module, self.average, None if self.computed else self.codebook, codes, count)
            return None
        return set_codes(module, self.codebook, torch.tensor(codes, dtype=self.dtype))

    def _access(self, module: nn.Module, lies: Any, width: int) -> Access:
        reader = _reader(module, self.codebook, lies, width)
        if reader is None:
            raise Unreadable
        call = self.reading.call
        if self.project_in is not None and call.keywords["summed"] is not None:  # type: ignore[attr-defined]
            call = partial(call, summed=width)
        access = Access(call, reader, self.reading.decode)
        if self.average is None:
            return access
        counts, sums = self.average.counts, self.average.sums
        return replace(access, statistics=partial(statistics_at, counts=counts, sums=sums))

    @property
    def readable(self) -> bool:
        """Whether the codes that were set can be read again."""
        try:
            self.build(probe(self.sizes))
        except Unreadable:
            return False
        return True

    def ways_to_carry(self) -> dict[str, Carry]:
        """Return how a state is carried on, by what does not raise once a layer has been called.

        A module that holds a function of its own has no pickle, and one under `torch.nn.utils.weight_norm` no copy.
        """
        wanted, found = probe(self.sizes), dict(CARRY)
        for way in ("deepcopy", "pickle"):
            try:
                layer = self.build(wanted)
                layer(wanted.layer.codes[0, :2])
                CARRY[way](layer, layer)
            except Exception:
                del found[way]
        return found

    def casts(self) -> set[str]:
        """Return to what a layer can be cast: what raises is lacking, as distances of 16 bits are in older torch."""
        found = set()
        for kind in CASTS:
            if kind == str(self.dtype).removeprefix("torch."):
                continue
            try:
                wanted = probe(self.sizes)
                x = np.ones((2, wanted.layer.codes.shape[2]))
                cast_to(self.build(wanted), kind)(x, use=Use(with_grad=False))
            except Exception:  # of somebody else's code, which may be anything
                continue
            found.add(f"cast:{kind}")
        return found


def require_its_codes(declared: Declared) -> None:
    """Call layers, so that codes which are not used, or move, or answers at random, are one error before any law.

    Raises DeclarationContradicted. What a module raises by itself is left for the laws to say.
    """
    wanted = probe(declared.sizes)
    codes = wanted.layer.codes
    x, others = codes[0, :8] + 0.25, replace(wanted, layer=replace(wanted.layer, codes=-3 * codes))
    try:
        layer, again = declared.build(wanted), declared.build(wanted)
        before = layer.codes()
        first, moved = layer(x), layer.codes()
        second, other = again(x, use=Use(salt=1)), declared.build(others)(x)
    except DeclarationContradicted:
        raise
    except Exception:
        return
    path = repr(declared.codebook)
    # codes that are averages may be taken from this first batch, whatever they were set to
    if declared.average is None and np.array_equal(first.output, other.output):
        what = "codes that change nothing in the output when they are set: is it FSQ, LFQ or a random projection?"
        raise DeclarationContradicted("codebook", path, what)
    if declared.average is None and not np.array_equal(before, moved):
        remedy = (
            "average= where they follow their tokens; or freeze=, which holds them still and leaves loss and gradient"
        )
        raise DeclarationContradicted("codebook", path, "codes that a call in training moves", remedy)
    if not (np.array_equal(first.output, second.output) and np.array_equal(first.indices, second.indices)):
        what = "two calls in training that differ by their random numbers alone"
        raise DeclarationContradicted("random_in_training", "False", what, "declare it where that is meant")


def require_polarity(declared: Declared, mask: str) -> None:
    """Call a layer under a mask of one token and one of padding, so that a mask the wrong way round is one error.

    It is the wrong way round where padding has an output, or a gradient of the loss, and the token has none. Raises
    DeclarationContradicted. What a module raises by itself is left for the laws to say.
    """
    wanted = probe(declared.sizes)
    x = wanted.layer.codes[0, :2] + 0.25
    try:
        reply = declared.build(wanted)(x, Start(np.zeros_like(x), (1.0,)), mask=np.array([True, False]))
    except Exception:
        return
    reached = None if reply.reached is None else reply.reached.x
    for found in (reply.output, np.zeros_like(x) if reached is None else reached):
        answers = np.any(found, axis=1)
        if answers[1] and not answers[0]:
            other = mask.removeprefix("~") if mask.startswith("~") else f"~{mask}"
            what = "an answer at padding and none at tokens"
            raise DeclarationContradicted("mask", repr(mask), what, f"give {other!r} for a mask the other way round")


def reference_of(sizes: tuple[int, int] | None, estimator: Estimator = "straight_through") -> SimVQ:
    """Return any layer of these sizes, (D, K), as the oracle's, to see what a declaration says of it."""
    dim, codebook_size = sizes or SIZES
    return SimVQ(np.ones((codebook_size, dim)), (Layer(np.eye(dim)),), estimator)


def probe(sizes: tuple[int, int] | None = None) -> Wanted:
    """Return any layer of these sizes, (D, K)."""
    dim, size = sizes or (3, 2)
    return Wanted(VectorQuantize(np.ones((1, size, dim)) + np.arange(size)[:, None]))


def _reader(module: nn.Module, codebook: Any, lies: Any, width: int) -> Callable[[nn.Module], Tensor] | None:
    """Return what reads the codes, (1, K, D), of any copy of this module; None where no name leads to them."""
    if isinstance(codebook, str):
        return partial(codes_at, path=codebook)
    if isinstance(codebook, BetweenProjections):
        turn = turning(width, torch.float32, torch.device("cpu")).tolist()
        return partial(codes_turned, path=codebook.codes, by=turn)
    if isinstance(codebook, ThroughLinear):
        return partial(codes_through, frozen=codebook.frozen, linear=codebook.linear)
    lying = lies.tensor if isinstance(lies, Turned) else lies
    held = [*module.named_parameters(), *module.named_buffers()]
    name = next((name for name, each in held if each is lying), None)
    if name is None:
        return None
    by = lies.by.tolist() if isinstance(lies, Turned) else None
    return partial(codes_at, path=name) if by is None else partial(codes_turned, path=name, by=by)


def place_affine(module: nn.Module, path: str, affine: Layer) -> None:
    """Give a linear layer, or a convolution of kernel 1, this weight, (out, in), and this bias, or 0.

    Under weight normalisation the rows' lengths and directions. Raises DeclarationContradicted where shapes differ.
    """
    projection: Any = module.get_submodule(path)
    shape = tuple(projection.weight.shape)
    if shape[:2] != affine.weight.shape or projection.weight.numel() != affine.weight.size:
        raise DeclarationContradicted(
            "a projection",
            repr(path),
            f"a weight of {shape}, expected {affine.weight.shape}",
            "hand dim and codebook_dim",
        )
    weight = affine.weight.reshape(shape)
    with torch.no_grad():
        if hasattr(projection, "weight_g"):  # g · v / ‖v‖, as it was before torch 2.0
            set_exactly(projection.weight_v, weight)
            lengths = np.linalg.norm(affine.weight, axis=1)
            set_exactly(projection.weight_g, lengths.reshape(projection.weight_g.shape))
        elif hasattr(projection, "parametrizations"):
            projection.weight = torch.as_tensor(weight).to(projection.weight)
        else:
            set_exactly(projection.weight, weight)
    if projection.bias is not None:
        set_exactly(projection.bias, np.zeros(shape[0]) if affine.bias is None else affine.bias)
    if hasattr(projection, "weight_g"):  # its weight is made anew before each forward, and so not yet
        return
    held = array_of(projection.weight).reshape(affine.weight.shape)
    if not np.array_equal(held, affine.weight):
        raise DeclarationContradicted("a projection", repr(path), "a weight that cannot be set exactly")


def projection_capabilities(module: nn.Module, paths: tuple[str | None, str | None]) -> set[str]:
    """Return what layers between these projections offer."""
    parts: list[Any] = [module.get_submodule(path) for path in paths if path is not None]
    if not parts:
        return set()
    normed = any(hasattr(part, "weight_g") or hasattr(part, "parametrizations") for part in parts)
    biased = all(part.bias is not None for part in parts)
    return {"projections", *(["weight_norm"] if normed else []), *(["projection_bias"] if biased else [])}
