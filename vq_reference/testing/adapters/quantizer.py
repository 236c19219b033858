"""An adapter for a torch quantizer, from what makes it and what it declares. The defaults are the common case."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from vq_reference.codebook import Layer
from vq_reference.estimators import Estimator
from vq_reference.residual import ResidualStack
from vq_reference.simvq import SimVQ
from vq_reference.testing.adapters.codebooks import BetweenProjections, Turned
from vq_reference.testing.adapters.codes_at_path import Codes, codes_of, converted, set_codes
from vq_reference.testing.adapters.declaration import DeclarationContradicted
from vq_reference.testing.adapters.declared import Asked, Declared, projection_capabilities
from vq_reference.testing.adapters.implementation import Implementation, two_halves
from vq_reference.testing.adapters.lasting import Lasting
from vq_reference.testing.adapters.lasting_torch import CARRY, cast_to
from vq_reference.testing.adapters.module_script import module_script
from vq_reference.testing.adapters.moving_average import (
    MovingAverage,
    mark_initialised,
    require_that_it_moves,
    set_through_averages,
)
from vq_reference.testing.adapters.places import Place, at, outline
from vq_reference.testing.adapters.reading import Reading, reading_of
from vq_reference.testing.adapters.stack import Flow, with_stack
from vq_reference.testing.adapters.torch_layer import Layouts, Returned, TorchLayer
from vq_reference.testing.precision import PRECISIONS
from vq_reference.vector_quantize import VectorQuantize

Weights = Callable[[SimVQ], tuple[float, float]]


def torch_quantizer(
    make: Callable[[Asked], nn.Module] | nn.Module,
    codebook: str | Callable[[Any, Tensor], Tensor | Turned | nn.Module | None],
    *,
    name: str = "",
    x: str = "... D",
    output: str | None = None,
    indices: str | None = None,
    output_at: Place = 0,
    indices_at: Place | None = 1,
    loss_at: Place | None = 2,
    loss_shape: tuple[int, ...] | None = None,
    loss_weights: tuple[float, float] | Weights = two_halves,
    loss_reduction: Literal["mean", "sum"] = "mean",
    loss_value: Callable[[SimVQ], float] | None = None,
    loss_dtype: str | None = None,
    estimator: Estimator | Iterable[Estimator] = "straight_through",
    sync_nu: float = 0.0,
    metric: Literal["euclidean", "cosine"] = "euclidean",
    unit_codes: bool = False,
    eval_as_training: bool = True,
    eval_estimator: Estimator | Literal["as training"] = "as training",
    eval_loss: Literal["as training", "zero"] = "as training",
    decode: str | Callable[[Any, Tensor], Tensor] | None = None,
    call: Callable[[Any, Tensor], Any] | None = None,
    freeze: Callable[[Any], object] | None = None,
    state_changes: Iterable[str] = (),
    sizes: tuple[int, int] | None = None,
    project_in: str | None = None,
    project_out: str | None = None,
    average: MovingAverage | None = None,
    stack: bool = False,
    stack_flow: Flow = "identity",
    packages: Iterable[str] = (),
    dtype: str = "float32",
    device: str = "cpu",
) -> Implementation:
    """Describe a torch module that quantizes.

    make: returns a module of the wanted sizes; or an instance, a trained checkpoint for one, that is copied for every
    case, with its codes overwritten.
    codebook: where the codes lie, as the path of a parameter or buffer of (K, D), with axes of size 1 before it or not
    ("_codebook.embed"), or of (D, K) ("embed.T"); or a function that sets them, (module, codes (K, D)), and returns the
    tensor at which their gradient arrives (`Turned` where a projection stands before it), or the submodule whose
    forward returns them, or None.
    name: what it is called in reports; its class, if empty.
    x, output, indices: layouts, such as "B D H W", "B T D", "... D" (any number of leading dimensions), "(B H W)"
    (flattened). The output lies as x does, indices as x without D, unless said otherwise.
    output_at, indices_at, loss_at: where each sits in what the forward returns: a position, a key or attribute, a path
    of those such as (2, "codes"), () for the returned value itself, a function of it, None for what it does not return.
    loss_shape: of the loss, None for one number of any rank.
    loss_weights: (a, b), weights of the codebook half and the encoder half, or a function of the wanted layer.
    loss_reduction: "sum" where it is one over all N·D entries.
    loss_value: weight of the value, where the halves are not stopped from one another and it is not a + b.
    estimator: the one it trains with, or all that `make` can be asked for.
    sync_nu: share of the output's gradient that reaches the chosen codes on purpose: ν of the synchronous update.
    metric: what the choice minimises. unit_codes: the output is a code divided by its length.
    loss_dtype: of the loss, None for `dtype`, or float32 where that is narrower.
    eval_as_training: whether the eval mode gives the same output and indices. eval_estimator: the estimator there,
    where it is another; "none" where the output has no gradient. eval_loss: "zero" where eval gives 0, or None.
    decode: name of the method from indices to outputs, or a function of (module, indices).
    call: (module, x) → what is returned, where that is more than module(x).
    freeze: (module) called before each forward, after its mode is set, so that the codes stay.
    state_changes: buffers that a forward in training may change all the same; in eval too, if they are not saved.
    sizes: (D, K) where it can have no other; found by itself for an instance with a path for its codebook.
    project_in, project_out: paths of the nn.Linear, or convolutions of kernel 1, between which the codes lie at their
    path; `make` then hands wanted.codebook_dim, the width of codes, to the module.
    average: what is kept between calls by a module whose codes are moving averages. The path of its codebook may be
    that of an attribute that is computed, sums ÷ counts.
    stack: whether `make` returns a residual stack of `wanted.layers`, for the laws of stacks, on the CPU. Its codes lie
    at one path, as (L, K, D), or each layer's at its own, with * for its number: "layers.*.embed". The layout of its
    indices has 1 for the axis of the layers, such as "... 1", and its loss is one number for each.
    stack_flow: "none" where a residual is the input minus its own straight-through copy, on purpose: the loss of the
    first layer alone then reaches the input.
    packages: distributions whose version belongs in the report. dtype, device: in what it computes, and where; the
    module is converted to that dtype unless its codes, at a path, have it already.

    Raises ValueError for an instance whose loss weights are not given: they cannot be asked for; for an average of
    what cannot be built anew for each law, or of a stack; and for a * in a path, or a flow, without a stack. Raises
    DeclarationContradicted for a name that leads nowhere.

    >>> from vq_reference.nn import SimVQ
    >>> def make(wanted):
    ...     return SimVQ(wanted.dim, wanted.codebook_size, nn.Identity(), rotation_trick=False)
    >>> made = torch_quantizer(make, "frozen_codebook", loss_weights=(0, 0.25))
    >>> sorted(made.capabilities - {"state", "form", "eval", "leading"})
    ['estimator:straight_through', 'indices', 'loss']
    """
    instance = make if isinstance(make, nn.Module) else None
    if instance is not None and loss_at is not None and loss_weights is two_halves:
        raise ValueError(
            "loss_weights is not given for an instance: expected (a, b); `vq-check describe` measures them"
        )
    if isinstance(codebook, str) and "*" in codebook and not stack:
        raise ValueError(f"codebook is {codebook!r}, where * is the number of a layer: expected stack=True with it")
    if stack_flow != "identity" and not stack:
        raise ValueError(f"stack_flow is {stack_flow!r}: expected stack=True with it")
    if average is not None and stack:
        raise ValueError("average is given with stack=True: expected one of both, the averages of one layer or a stack")
    if (project_in is None) != (project_out is None) or (project_in and not isinstance(codebook, str)):
        raise ValueError(
            f"project_in is {project_in!r}, project_out {project_out!r} and codebook {codebook!r}: expected three paths"
        )
    paths, codebook = codebook, codebook.replace("*", "0") if isinstance(codebook, str) else codebook
    stored = codebook
    if project_in is not None and project_out is not None:
        codebook = BetweenProjections(project_in, str(stored), project_out)
    estimators = [estimator] if isinstance(estimator, str) else list(estimator)
    computed = False
    if average is not None and instance is None and isinstance(codebook, str):
        plain: Any = make(_wanted(_probe(None, estimators[0])))
        computed = Codes.at(plain, codebook).computed
        codebook = partial(set_through_averages, average) if computed else codebook
    weights: Weights = loss_weights if callable(loss_weights) else (lambda _: loss_weights)
    layouts = Layouts.of(x, output, indices, loss_shape)
    place, torch_dtype = torch.device(device), getattr(torch, dtype)

    def made_for(reference: SimVQ) -> nn.Module:
        made: Any = make(_wanted(reference)) if instance is None else copy.deepcopy(instance)
        module: nn.Module = made
        return module

    def build(reference: SimVQ) -> TorchLayer:
        codes = reference.codebook
        module = converted(made_for(reference).to(place), codebook, torch_dtype)
        if average is not None:
            mark_initialised(module, average)
        arrives = set_codes(module, codebook, torch.tensor(codes, dtype=torch_dtype, device=place))

        def read(returned: Any) -> Returned:
            return Returned(
                _tensor("output_at", returned, output_at, floating=True),
                None if indices_at is None else _tensor("indices_at", returned, indices_at, floating=False),
                None if loss_at is None else _tensor("loss_at", returned, loss_at, floating=True),
            )

        def decoded(chosen: Tensor) -> Tensor:
            outputs: Tensor = decode(module, chosen) if callable(decode) else getattr(module, str(decode))(chosen)
            return outputs

        return TorchLayer(
            module,
            call=module if call is None else (lambda entering: call(module, entering)),
            dtype=torch_dtype,
            device=place,
            read=read,
            codes=arrives.tensor if isinstance(arrives, Turned) else arrives,
            codes_turned=arrives.by if isinstance(arrives, Turned) else None,
            codes_transposed=isinstance(codebook, str) and codebook.endswith(".T"),
            layouts=layouts,
            decode_indices=None if decode is None else decoded,
            freeze=freeze,
            changed=lambda other: set_codes(
                module, codebook, torch.tensor(other.codebook, dtype=torch_dtype, device=place)
            ),
        )

    known = sizes if instance is None or sizes else _sizes(instance, codebook)
    probed = build(_probe(known, estimators[0]))
    codes = probed.codes
    trained = codes.requires_grad if isinstance(codes, Tensor) else codes is not None
    there = {
        "indices": indices_at is not None,
        "loss": loss_at is not None and not unit_codes,
        "codebook_gradient": trained and not unit_codes,
        # a submodule whose forward makes them has frozen codes too, which no optimizer would change
        "step": trained and not unit_codes and not isinstance(codes, nn.Module),
        "decode": decode is not None,
        "leading": layouts.x.any_rank,
        "eval": eval_as_training,
        **{f"estimator:{each}": not unit_codes for each in estimators},
        "state": True,
        "form": True,
    }
    described = Implementation(
        name=name or type(probed.module).__name__,
        build=build,
        precision=PRECISIONS[dtype],
        capabilities=frozenset(capability for capability, present in there.items() if present),
        versions=versions_of([*packages, "torch"]),
        loss_weights=weights,
        loss_reduction=loss_reduction,
        loss_value=loss_value,
        loss_dtype=loss_dtype,
        eval_estimator=eval_estimator,
        eval_loss=eval_loss,
        sync_nu=sync_nu,
        metric=metric,
        unit_codes=unit_codes,
        state_changes=frozenset(state_changes),
        sizes=known,
        script=module_script(build, made_for, instance, (output_at, indices_at, loss_at), call, decode),
    )
    if device != "cpu" or indices_at is None:
        return described
    places = (output_at, indices_at, None if unit_codes else loss_at)
    declared = Declared(
        lambda asked: converted(
            make(asked) if instance is None else copy.deepcopy(instance),
            codebook if computed else stored,
            torch_dtype,
        ),
        stored if project_in is not None or average is not None else codebook,
        reading_of(
            layouts,
            places,
            call,
            decode,
            ("mask", "lengths") if average is None else (average.mask or "mask", average.lengths or "lengths"),
            0 if loss_reduction == "sum" else None,
            freeze if average is None else None,
        ),
        "straight_through" if "straight_through" in estimators else estimators[0],
        torch_dtype,
        average,
        computed,
        project_in,
        project_out,
        known,
    )
    if average is not None:
        _require_of_average(described, instance, paths)
    described = _with_layers(described, declared, probed.module, trained)
    if stack:
        if "straight_through" not in estimators:
            raise ValueError(f"stack is given, and estimator is {estimators}: expected straight_through among them")
        if not eval_as_training or loss_value is not None:
            raise ValueError("stack is given: expected a loss of two halves, and that eval is as training")
        reading = reading_of(
            layouts, places, call, decode, (), 0 if loss_reduction == "sum" else None, freeze, stacked=True
        )
        lasting = _stack(described, make, paths, reading, places, trained, stack_flow, torch_dtype)
        offered = {"stack", "stack:trained" if trained else "stack:frozen"}
        described = replace(described, capabilities=described.capabilities | offered, lasting=lasting)
    return described


def _with_layers(described: Implementation, declared: Declared, module: nn.Module, trained: bool) -> Implementation:
    """Return the implementation with layers that are kept, saved, copied and cast as any torch module."""
    if not declared.readable:
        return described
    average = declared.average
    if average is not None:
        require_that_it_moves(declared.build, average, declared.codebook)
    offered = {"lasting", "checkpoint", *declared.casts()}
    offered |= projection_capabilities(module, (declared.project_in, declared.project_out))
    if average is not None:
        offered |= average.capabilities
    else:
        offered |= {"trained"} if trained else set()
        offered |= set() if described.state_changes else {"quiet_without_grad"}
    weighed = described.loss_weights if "loss" in described.capabilities else (lambda _: (0.0, 0.0))
    lasting = Lasting(
        declared.build,
        CARRY,
        cast_to,
        loss_in_eval=described.eval_loss == "as training",
        straight_through="estimator:straight_through" in described.capabilities,
        means=partial(_meant, described, weighed),
        **({} if average is None else average.of_padding),
    )
    return replace(described, capabilities=described.capabilities | offered, lasting=lasting)


def _meant(described: Implementation, weighed: Weights, layer: VectorQuantize) -> VectorQuantize:
    """Return what a layer is by what was declared, for the one that was asked for."""
    asked = replace(_probe(described.sizes), beta=layer.beta, commitment_weight=layer.commitment_weight)
    a, b = weighed(asked)
    halves: dict[str, Any] = {"trained": layer.trained and a > 0, "commitment_weight": a, "beta": b / a if a else 1.0}
    halves |= {} if a else {"commitment_weight": b}
    shown = a + b if described.loss_value is None or not (a or b) else described.loss_value(asked)
    direction = described.metric == "cosine"
    return replace(
        layer,
        **halves,
        value_weight=shown,
        unit=described.unit_codes,
        by_direction=direction and not described.unit_codes,
    )


def _require_of_average(described: Implementation, instance: nn.Module | None, codebook: Any) -> None:
    """Raise ValueError for an average of what cannot be built anew for each law, or has no path for its codes."""
    if instance is not None or described.sizes is not None:
        raise ValueError("average is given for an instance: expected a function that makes one of any size")
    if not isinstance(codebook, str):
        raise ValueError(
            "average is given, and codebook is no path: expected a path, with project_in= and project_out= where the "
            "codes lie between projections"
        )


def _require_of_stack(codebook: Any, places: Sequence[Any], metric: str) -> None:
    """Raise ValueError that names what is declared otherwise than the laws of stacks know it."""
    _, _, loss_at = places
    reasons = {
        "codebook is no path": not isinstance(codebook, str),
        "loss_at is None": loss_at is None,
        f"metric is {metric!r}": metric != "euclidean",
    }
    if wanting := [reason for reason, is_so in reasons.items() if is_so]:
        raise ValueError(
            f"stack is given, and {', and '.join(wanting)}: expected a path for the codebook, a loss, and "
            "Euclidean distances"
        )


def _stack(
    described: Implementation,
    make: Any,
    codebook: Any,
    reading: Reading,
    places: Sequence[Any],
    trained: bool,
    flow: Flow,
    dtype: torch.dtype,
) -> Lasting:
    """Return how stacks are made: with β = 1 where no gradient trains codes. Raises ValueError."""
    if isinstance(make, nn.Module) or described.sizes is not None or described.lasting is None:
        raise ValueError("stack is given for an instance: expected a function that makes one of any size")
    _require_of_stack(codebook, places, described.metric)
    probe = _probe(None)
    for beta, weight in ((0.25, 0.5), (0.5, 2.0)) if trained else ((1.0, 0.5), (1.0, 2.0)):
        found = tuple(described.loss_weights(replace(probe, beta=beta, commitment_weight=weight)))
        expected = (weight if trained else 0.0, weight * beta)
        if found != expected:
            raise ValueError(
                f"stack is given, and loss_weights is {found} where β = {beta} and w = {weight} are wanted: expected "
                f"{expected}; hand both to the module, and return them in loss_weights"
            )

    def made(wanted: ResidualStack) -> nn.Module:
        size, dim = wanted.codes[0].shape
        beta, weight = wanted.beta, wanted.commitment_weight
        halves = (beta, weight) if trained else (1.0, weight * beta)
        asked = Asked(dim, size, "straight_through", *halves, layers=len(wanted.codes), codebook_dim=dim)
        return converted(make(asked), codebook.replace("*", "0"), dtype)

    return with_stack(described.lasting, made, codebook, reading, flow, dtype)


def versions_of(distributions: Iterable[str]) -> dict[str, str]:
    """Return the installed version of each distribution; "unknown" where it is importable but not installed."""
    found = {}
    for name in distributions:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def _wanted(reference: SimVQ) -> Asked:
    """Return what is asked of `make` for a layer that behaves as `reference`."""
    size, dim = reference.codebook.shape
    return Asked(dim, size, reference.estimator, reference.beta, reference.commitment_weight, codebook_dim=dim)


def _probe(sizes: tuple[int, int] | None, estimator: Estimator = "straight_through") -> SimVQ:
    """Return any layer of these sizes, (D, K), to see what `make` makes."""
    dim, codebook_size = sizes or (4, 3)
    return SimVQ(np.ones((codebook_size, dim)), (Layer(np.eye(dim)),), estimator)


def _sizes(instance: nn.Module, codebook: Any) -> tuple[int, int]:
    if callable(codebook):
        raise ValueError("sizes is None, and codebook a function: expected sizes=(D, K) for an instance")
    shape = codes_of(instance, codebook).shape
    return int(shape[-1]), int(shape[-2])


def _tensor(what: str, returned: Any, place: Place, floating: bool) -> Any:
    """Return the tensor at a place, or None where None sits there. Raises DeclarationContradicted for anything else."""
    found = at(what, returned, place)
    if found is not None and not (isinstance(found, Tensor) and found.dtype.is_floating_point == floating):
        kind = "a floating tensor" if floating else "a tensor of integers"
        raise DeclarationContradicted(what, repr(place), f"{outline(found)} in {outline(returned)}", f"expected {kind}")
    return found
