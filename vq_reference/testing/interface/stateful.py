"""The border for layers that outlive a call: state that moves, copies of it, masks, heads, projections and stacks.

As in `implementation`, everything is NumPy float64, and what is asked for is said with the oracle's own dataclasses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from vq_reference.arguments import Array
from vq_reference.codebook import Layer
from vq_reference.ema import Statistics
from vq_reference.residual import ResidualStack
from vq_reference.vector_quantize import VectorQuantize

# What the strategies of such layers draw only where it is offered, and what laws of them may need.
LASTING = {
    "lasting": "layers whose state can be saved and copied, as torch modules have them",
    "trained": "codes that a gradient trains",
    "directional": "directional reparameterization",
    "ema": "codes that are moving averages",
    "smoothing": "Laplace smoothing of counts",
    "quiet_without_grad": "a promise that no state moves where gradients are off",
    "initialise_from_data": "codes taken from the first batch",
    "replace": "replacement of dead codes",
    "heads": "several heads",
    "separate_codebooks": "a codebook for each head",
    "projections": "projections into the space of the codes and out of it",
    "projection_bias": "a bias of these projections",
    "weight_norm": "weight normalisation of these projections",
    "cosine": "the cosine metric beside the Euclidean one",
    "channel_first": "channels along axis 1",
    "mask": "a mask over padding",
    "lengths": "lengths in place of a mask",
    "cast:float16": "computation on float16 tokens",
    "cast:bfloat16": "computation on bfloat16 tokens",
    "cast:autocast": "computation under autocast",
    "cast:float64": "conversion to float64",
    "checkpoint": "activation checkpointing",
    "stack": "a residual stack: stack=True of torch_quantizer",
    "stack:frozen": "a residual stack of codes that no gradient trains",
    "stack:trained": "a residual stack of codes that a gradient trains",
    "stack:ema": "a residual stack of codes that are moving averages",
    "stack:projections": "a residual stack between a projection in and a projection out",
    "layer_dropout": "a residual stack that drops layers in training",
    "ranks": "a codebook that processes share",
    "ranks_equal_one": "processes that are as one with the whole batch",
    "compiled": "compilation",
}


@dataclass(frozen=True)
class Averaging:
    """How codes follow their tokens: decay γ, Laplace ε, the count τ below which a code is replaced."""

    decay: float = 0.5
    epsilon: float = 0.0
    replace_below: float = 0.0
    initialise_from_data: bool = False


@dataclass(frozen=True)
class Wanted:
    """The layer that a law asks for. averaging: None for codes that a gradient trains, or nothing.

    placed: whether codes, counts and sums are those of `layer`, or what the constructor makes of its sizes, the same
    each time.
    """

    layer: VectorQuantize
    averaging: Averaging | None = None
    channel_first: bool = False
    placed: bool = True


@dataclass(frozen=True)
class WantedStack:
    """The stack that a law asks for: its layers' codes and weights; whether it drops layers in training.

    averaging: None for codes that stay where they are, moving averages too. project_in, project_out: around the stack.
    """

    stack: ResidualStack
    layer_dropout: bool = False
    averaging: Averaging | None = None
    project_in: Layer | None = None
    project_out: Layer | None = None


class Start(NamedTuple):
    """What a backward starts from: the gradient at the output, (N, dim), and at each loss, (L,)."""

    output: Array
    losses: Sequence[float]


class Reached(NamedTuple):
    """Where a backward arrives: at x, (N, dim), and at each parameter by its name. None: no path leads there."""

    x: Array | None
    parameters: Mapping[str, Array | None]


class Reply(NamedTuple):
    """What one call gives: output (N, dim), indices (N, H), or (N, L) for a stack, losses (L,), 1 for a single layer.

    dtypes: names of those of output, indices and loss. shapes: of the three as they came, channels last.
    """

    output: Array
    indices: Array
    losses: Array
    reached: Reached | None
    dtypes: tuple[str, str, str]
    shapes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Use:
    """How a layer is called. leading: dimensions whose product is N; None for two of any size.

    salt: added to the seed of the call, so that layers of one state draw differently. checkpointed: with activation
    checkpointing, as `torch.utils.checkpoint(..., use_reentrant=True)`: without gradients, and again in the backward.
    asks: whether x asks for a gradient; not so behind an encoder that is frozen.
    """

    training: bool = True
    leading: tuple[int, ...] | None = None
    with_grad: bool = True
    salt: int = 0
    checkpointed: bool = False
    asks: bool = True


class LastingLayer(Protocol):
    """A built layer whose state lasts."""

    def __call__(
        self,
        x: Array,
        start: Start | None = None,
        use: Use = Use(),
        mask: Array | None = None,
        lengths: Array | None = None,
    ) -> Reply:
        """Run forward once on x, (N, dim), and backward once from `start`. mask: (N,) bool. lengths: (B,)."""
        ...

    def decode(self, indices: Array) -> Array:
        """Return the outputs for indices as a reply holds them: (N, dim), or as wrong code shapes them."""
        ...

    def codes(self) -> Array:
        """Return the effective codes as they are now, (G, K, D); (L, K, D) for a stack."""
        ...

    def statistics(self) -> tuple[Statistics, ...]:
        """Return what each of the G codebooks remembers. Needs the capability "ema"."""
        ...

    def state(self) -> Mapping[str, Array]:
        """Return a copy of every parameter and buffer, by name."""
        ...


# what follows the name of a buffer that no state_dict holds, in the state of a layer
NOT_SAVED = " (not saved)"


def bare(name: str) -> str:
    """Return the name of a parameter or buffer without the mark: the same name, if a state_dict holds it."""
    return name.removesuffix(NOT_SAVED)


def one_gain(layers: int) -> float:
    """Return the gain of a stack that has one estimator around all its layers."""
    return 1.0


Carry = Callable[[LastingLayer, LastingLayer], LastingLayer]


@dataclass(frozen=True)
class Lasting:
    """How an implementation makes such layers, and the conventions that it declares.

    build: the layer that is wanted, its codes and statistics placed exactly, or left as they are constructed.
    carry: "state_dict", "deepcopy", "pickle" → (layer, another one of the same sizes) → one that has to act as `layer`.
    cast: (layer, "float16" | "bfloat16" | "float64" | "autocast") → the layer that takes such tokens.
    build_stack, compiled: where there are such.
    padded_output: what comes out of padding. padded_index: the index of padding, None where nothing is promised of it.
    loss_in_eval: whether eval mode has the loss of training, or 0.
    stack_gain: ∂output/∂x of a stack of L straight-through layers is this many times I.
    straight_through: whether these layers pass the output's gradient straight through.
    means: the layer that is asked for → what its layer is by its declarations: the weights of its loss, its metric.
    again: makes the implementation in another process, and so is picklable; None where only this one can. Set for what
    is named as a target.
    flow: ∂r_i/∂x of its residuals is I ("identity": codes are constants in them) or 0 from the second layer on ("none":
    each layer's estimator passes all of x on, and nothing is left).
    """

    build: Callable[[Wanted], LastingLayer]
    carry: Mapping[str, Carry] = field(default_factory=dict)
    cast: Callable[[LastingLayer, str], LastingLayer] | None = None
    compiled: Callable[[LastingLayer], LastingLayer] | None = None
    build_stack: Callable[[WantedStack], LastingLayer] | None = None
    padded_output: Literal["zero", "input"] = "zero"
    padded_index: int | None = -1
    loss_in_eval: bool = True
    stack_gain: Callable[[int], float] = one_gain
    flow: Literal["identity", "none"] = "identity"
    straight_through: bool = True
    means: Callable[[VectorQuantize], VectorQuantize] = lambda layer: layer
    again: Callable[[], Any] | None = None
