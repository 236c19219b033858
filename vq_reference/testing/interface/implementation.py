"""The border between the laws and whatever they check: a call, and a vector-Jacobian product, in NumPy float64.

A law states a layer as a `vq_reference.simvq.SimVQ`, asks the implementation to build that layer, and calls it. Nothing
here knows torch: a JAX or MLX implementation fits as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol

from vq_reference.arguments import Array
from vq_reference.estimators import Estimator
from vq_reference.simvq import SimVQ
from vq_reference.testing.interface.auxiliary import TERMS, Auxiliary
from vq_reference.testing.interface.precision import Precision
from vq_reference.testing.interface.stateful import LASTING, Lasting
from vq_reference.testing.interface.torch_source import Written
from vq_reference.vector_quantize import VectorQuantize

# What an implementation may declare that it has. A law that needs more is not applicable to it, never broken.
CAPABILITIES = {
    "estimator:straight_through": "a straight-through gradient",
    "estimator:rotation": "the rotation trick",
    "estimator:none": "an output without estimator",
    "indices": "the chosen indices",
    "loss": "a commitment loss",
    "unit_loss": "a commitment loss of directions",
    "unit_estimator": "a straight-through gradient from the direction of a token",
    "codebook_gradient": "the gradient at the effective codebook",
    "transform": "a trained linear transform of frozen codes",
    "mlp": "a transform of several layers",
    "decode": "a decode from indices to outputs",
    "layer_decode": "a decode of layers with heads or projections",
    "state": "parameters and buffers that can be read",
    "step": "trained codes that can be changed between two calls, as an optimizer does",
    "form": "shapes and dtypes of what it returns",
    "leading": "any number of leading dimensions",
    "eval": "an eval mode that chooses and outputs codes as training does",
    **LASTING,
    **TERMS,
}


# What follows from other declarations, and is not declared itself.
FOLLOWING = {
    "estimator": "any estimator",
    "any_loss": "a commitment loss",
    "any_decode": "a decode from indices to outputs",
    "trains_input": "an estimator that trains the input",
    "trained_codes": "codes, or a transform of them, that a gradient trains",
    "euclidean": "a choice by Euclidean distance",
    "padding": "a mask over padding, or lengths",
    "kept": "layers, or a stack, whose state can be saved and copied",
    "averages": "codes that are moving averages, in such layers or stacks",
}


class Cotangent(NamedTuple):
    """What a backward starts from: the gradient at the output, (N, D), and at the loss."""

    output: Array
    loss: float


class Gradients(NamedTuple):
    """Where a backward arrives. None says that no gradient path leads there, which is not the same as zero.

    x: (N, D). codebook: at the effective codes, (K, D). parameters: at each parameter of the transform, by name, in the
    order of the oracle's layers ("0.weight", "0.bias", "1.weight", …). frozen: at the frozen codes, (K, F).
    """

    x: Array | None
    codebook: Array | None
    parameters: Mapping[str, Array | None]
    frozen: Array | None = None


class Form(NamedTuple):
    """What a call gave before it crossed the border: shapes in the implementation's own layout, dtype names.

    output_expected, indices_expected and loss_expected are the shapes that its documentation promises for this input.
    """

    output_shape: tuple[int, ...]
    output_expected: tuple[int, ...]
    output_dtype: str
    indices_shape: tuple[int, ...]
    indices_expected: tuple[int, ...]
    indices_dtype: str
    loss_shape: tuple[int, ...]
    loss_expected: tuple[int, ...]
    loss_dtype: str
    same_device: bool


class Answer(NamedTuple):
    """What one call of a layer gives: output (N, D), indices (N,) and loss where declared, and one backward each.

    input: what was handed in, (N, D), as it is once the call is over; None where nobody could have written to it.
    """

    output: Array
    indices: Array | None
    loss: float | None
    gradients: tuple[Gradients, ...]
    form: Form | None = None
    input: Array | None = None


@dataclass(frozen=True)
class Call:
    """How a layer is called. The mathematics does not depend on any of it, and laws check that it does not.

    training: mode of the module. leading: the leading dimensions that the N tokens are arranged in, their product N;
    None for whatever is natural. memory: how the input lies there, with the same values; "expanded" needs all tokens
    equal. gradient: whether the input asks for one, as a leaf; "not asked" and "no_grad" allow no cotangents at x.
    """

    training: bool = True
    leading: tuple[int, ...] | None = None
    memory: Literal["contiguous", "strided", "expanded"] = "contiguous"
    gradient: Literal["asked", "not asked", "no_grad"] = "asked"


class Layer(Protocol):
    """A built layer: x is (N, D) float64, representable in the implementation's dtype."""

    def __call__(self, x: Array, cotangents: Sequence[Cotangent] = (), how: Call = Call()) -> Answer:
        """Run forward once, and backward once for each cotangent."""
        ...

    def decode(self, indices: Array) -> Array:
        """Return the outputs, (N, D), for indices of (N,). Needs the capability "decode"."""
        ...

    def state(self) -> Mapping[str, Array]:
        """Return a copy of every parameter and buffer, by name. Needs the capability "state"."""
        ...

    def overwrite_returned(self) -> None:
        """Overwrite, in place, every tensor that the last call returned. Needs the capability "state"."""
        ...

    def step(self, reference: SimVQ) -> None:
        """Change what is trained, in place, so that the codes are this reference's. Needs the capability "step".

        It has the sizes and the frozen codes of the layer that was built: only its transform is another.
        """
        ...


class Wrapped:
    """A layer in the place of another one, whose methods it has; a subclass overrides `around`, or single methods.

    layer: the other one, a `Layer` or a `LastingLayer`; a field of the subclass.
    """

    layer: Any

    def around(self, method: str, do: Callable[..., Any], *given: Any, **named: Any) -> Any:
        """Return what the layer's method gives. method: its name, "call" for the call itself; do: the method."""
        return do(*given, **named)

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Call the layer."""
        return self.around("call", self.layer, *given, **named)

    def __getattr__(self, name: str) -> Any:
        if name == "layer" or name.startswith("__"):  # asked by copy and pickle before there is a layer
            raise AttributeError(name)
        found = getattr(self.layer, name)
        return partial(self.around, name, found) if callable(found) else found


def two_halves(reference: SimVQ) -> tuple[float, float]:
    """Return the weights (a, b) of ℓ = a·mean(sg(x) − q)² + b·mean(x − sg(q))²: w and w·β, the field's usual form."""
    return reference.commitment_weight, reference.commitment_weight * reference.beta


@dataclass(frozen=True)
class Implementation:
    """One implementation, as the laws see it: how to build and call it, and the conventions that it declares.

    name: as it is called on the command line and in reports.
    build: takes the wanted layer, returns it. Codes, β, weight and estimator are those of the argument, exactly.
    precision: the dtype it computes in.
    capabilities: which of CAPABILITIES it has.
    versions: package name → version, for the report.
    loss_weights: the wanted layer → (a, b), weights of the codebook half and the encoder half. Here belongs β on the
    other half for old checkpoints, a loss without codebook half (EMA), a sum over the entries of a token (a factor D).
    loss_reduction: over tokens; "sum" takes the sum over all N·D entries.
    loss_value: the wanted layer → c, where ℓ has the value c·mean(x − q)² and c is not a + b: one mean square without a
    stop trains both ends with twice the weight that its value shows. None for a + b.
    loss_dtype: its name; None for the dtype that is computed in, or float32 where that is narrower.
    eval_estimator: the one in eval, where that is not the one of training; "none" for an output without a gradient.
    eval_loss: "zero" where eval gives no loss: the constant 0, or None in its place.
    sync_nu: ν of the synchronous update, with which the output's gradient g reaches the chosen codes, too: ν·g each
    (Huh et al., arXiv 2305.08842, eq. 21 of the draft; `sync_nu` in vqtorch). 1 where a backward hands the codes all
    of it, 0 where it reaches the encoder alone.
    metric: what the choice minimises; "cosine" compares directions.
    unit_codes: whether the output is a code divided by its length, which is what indices decode to as well.
    state_changes: names of buffers that a forward in training may change, and in eval those that are not saved: caches.
    sizes: (D, K) where the implementation is an instance, whose sizes are given; None where any can be built.
    script: the wanted layer, its tokens and how it is called → lines of plain torch, of which a script for a bug report
    is made. See `adapters.scripts` and `adapters.module_script`.
    lasting: how to build layers that live longer than one call, for the laws of state, masks, heads and stacks.
    auxiliary: the terms that it has beside its loss.
    """

    name: str
    build: Callable[[SimVQ], Layer]
    precision: Precision
    capabilities: frozenset[str]
    versions: Mapping[str, str] = field(default_factory=dict)
    loss_weights: Callable[[SimVQ], tuple[float, float]] = two_halves
    loss_reduction: Literal["mean", "sum"] = "mean"
    loss_value: Callable[[SimVQ], float] | None = None
    loss_dtype: str | None = None
    eval_estimator: Estimator | Literal["as training"] = "as training"
    eval_loss: Literal["as training", "zero"] = "as training"
    sync_nu: float = 0.0
    metric: Literal["euclidean", "cosine"] = "euclidean"
    unit_codes: bool = False
    state_changes: frozenset[str] = frozenset()
    sizes: tuple[int, int] | None = None
    script: Callable[[SimVQ, Array, Call], Written] | None = None
    lasting: Lasting | None = None
    auxiliary: Auxiliary | None = None

    def __post_init__(self) -> None:
        unknown = self.capabilities - set(CAPABILITIES)
        if unknown:
            raise ValueError(f"capabilities has {sorted(unknown)}: expected some of {sorted(CAPABILITIES)}")
        absent = [name for name in TERMS if name in self.capabilities and not getattr(self.auxiliary, name, None)]
        if absent:
            raise ValueError(f"capabilities has {absent}: expected auxiliary to have them too")

    @property
    def meaning(self) -> Callable[[VectorQuantize], VectorQuantize]:
        """What it declares that a layer is where another is asked for."""
        return (lambda layer: layer) if self.lasting is None else self.lasting.means

    @property
    def offers(self) -> frozenset[str]:
        """The declared capabilities, and what follows from them and from the metric."""
        estimators = {capability for capability in self.capabilities if capability.startswith("estimator:")}
        follows = {"estimator"} if estimators else set()
        follows |= {"trains_input"} if estimators - {"estimator:none"} else set()
        follows |= {"any_loss"} if self.capabilities & {"loss", "unit_loss"} else set()
        follows |= {"any_decode"} if self.capabilities & {"decode", "layer_decode"} else set()
        follows |= {"padding"} if self.capabilities & {"mask", "lengths"} else set()
        follows |= {"trained_codes"} if self.capabilities & {"codebook_gradient", "transform"} else set()
        follows |= {"kept"} if self.capabilities & {"lasting", "stack"} else set()
        moves = {"lasting", "ema"} <= self.capabilities or "stack:ema" in self.capabilities
        follows |= {"averages"} if moves else set()
        return self.capabilities | follows | ({"euclidean"} if self.metric == "euclidean" else set())

    def lacks(self, needs: frozenset[str]) -> list[str]:
        """Return, in words, what a law needs and this implementation does not declare."""
        return [{**CAPABILITIES, **FOLLOWING}[need] for need in sorted(needs - self.offers)]
