"""An adapter for a torch quantizer, from what makes it and what it declares. The defaults are the common case."""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from vq_reference.arguments import Array
from vq_reference.estimators import Estimator
from vq_reference.simvq import SimVQ
from vq_reference.testing.adapters.codegen.module_script import module_script
from vq_reference.testing.adapters.declare.declared_module import SIZES, Asked, Declared, reference_of, require_polarity
from vq_reference.testing.adapters.declare.module_layers import Weights, require_of_average, with_layers
from vq_reference.testing.adapters.declare.moving_average import MovingAverage, mark_initialised, set_through_averages
from vq_reference.testing.adapters.declare.residual import Flow, with_stacks
from vq_reference.testing.adapters.torch.codebooks import BetweenProjections, Turned
from vq_reference.testing.adapters.torch.codes_at_path import Codes, codes_of, converted, set_codes
from vq_reference.testing.adapters.torch.layer import Layouts, Returned, TorchLayer
from vq_reference.testing.adapters.torch.places import Place, at, outline
from vq_reference.testing.adapters.torch.reading import evaluated, reading_of
from vq_reference.testing.interface.errors import DeclarationContradicted
from vq_reference.testing.interface.implementation import Call, Implementation, two_halves
from vq_reference.testing.interface.precision import PRECISIONS
from vq_reference.testing.interface.stateful import bare, one_gain


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
    unit_tokens: bool = False,
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
    mask: str | None = None,
    lengths: str | None = None,
    padded_output: Literal["zero", "input"] = "zero",
    padded_index: int | None = -1,
    average: MovingAverage | None = None,
    stack: bool = False,
    stack_flow: Flow = "identity",
    stack_gain: Callable[[int], float] = one_gain,
    random_in_training: bool = False,
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
    metric: what the choice minimises. unit_codes: the output is a code divided by its length. unit_tokens: tokens are
    divided by theirs first, so that loss and estimator, too, are about directions (Yu et al., arXiv 2110.04627, §3.2).
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
    mask: the argument of forward for a mask that is True at tokens; after ~ for one that is True at padding, such as
    "~key_padding_mask". lengths: the one for lengths of sequences.
    padded_output, padded_index: what comes out of padding, and its index; None where nothing is promised of that.
    average: what is kept between calls by a module whose codes are moving averages. The path of its codebook may be
    that of an attribute that is computed, sums ÷ counts.
    stack: whether `make` returns a residual stack of `wanted.layers`, for the laws of stacks, on the CPU. Its codes lie
    at one path, as (L, K, D), or each layer's at its own, with * for its number: "layers.*.embed". The layout of its
    indices has 1 for the axis of the layers, such as "... 1", and its loss is one number for each.
    stack_flow: "none" where a residual is the input minus its own straight-through copy, on purpose: the loss of the
    first layer alone then reaches the input.
    stack_gain: L → the output's gradient at the input of L layers, in place of 1: L itself where each layer has an
    estimator of its own and they add up.
    random_in_training: whether training draws at random, as Gumbel noise or dropout do: eval mode alone is judged.
    packages: distributions whose version belongs in the report. dtype, device: in what it computes, and where; the
    module is converted to that dtype unless its codes, at a path, have it already.

    Raises ValueError for an instance whose loss weights are not given: they cannot be asked for; for an average of
    what cannot be built anew for each law, or of a stack; and for a * in a path, or a flow, without a stack. Raises
    DeclarationContradicted for a name that leads nowhere.

    >>> from vq_reference.nn import SimVQ
    >>> def make(wanted):
    ...     return SimVQ(wanted.dim, wanted.codebook_size, nn.Identity(), rotation_trick=False)
    >>> made = torch_quantizer(make, "frozen_codebook", loss_weights=(0, 0.25))
    >>> {"estimator:straight_through", "loss", "lasting", "compiled"} <= made.capabilities
    True
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
    if unit_codes and not unit_tokens and loss_at is not None and loss_weights is not two_halves:
        raise ValueError(
            "unit_codes is given with a loss: expected unit_tokens=True where its tokens are divided by their lengths, "
            "or loss_at=None"
        )
    if unit_tokens and not unit_codes:
        raise ValueError("unit_tokens is given: expected unit_codes=True with it, since tokens are compared with codes")
    if random_in_training:
        if average is not None:
            raise ValueError("random_in_training is given with average=: expected a layer that eval leaves alone")
        freeze, loss_at = evaluated, None if eval_loss == "zero" else loss_at
        estimator, eval_estimator = estimator if eval_estimator == "as training" else eval_estimator, "as training"
    paths, codebook = codebook, codebook.replace("*", "0") if isinstance(codebook, str) else codebook
    stored = codebook
    if project_in is not None and project_out is not None:
        codebook = BetweenProjections(project_in, str(stored), project_out)
    estimators = [estimator] if isinstance(estimator, str) else list(estimator)
    computed = False
    if average is not None and instance is None and isinstance(codebook, str):
        plain: Any = make(_wanted(reference_of(None, estimators[0])))
        computed = Codes.at(plain, codebook).computed
        codebook = partial(set_through_averages, average) if computed else codebook
    weights: Weights = loss_weights if callable(loss_weights) else (lambda _: loss_weights)
    _require_weights(weights)
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
            put_back=average is not None and freeze is None,
            changed=lambda other: set_codes(
                module, codebook, torch.tensor(other.codebook, dtype=torch_dtype, device=place)
            ),
        )

    known = sizes if instance is None or sizes else _sizes(instance, codebook)
    probed = build(reference_of(known, estimators[0]))
    if call is None and getattr(probed.module.forward, "__func__", None) is nn.Module.forward:
        raise ValueError(f"call is None, and {type(probed.module).__name__} has no forward: expected call=, a function")
    tokens = np.arange(4.0 * (known or SIZES)[0]).reshape(4, -1) / 4
    _require_its_places(probed, tokens, indices_at, loss_at)
    _require_its_state(probed, tokens, frozenset(state_changes))
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
        "unit_loss": loss_at is not None and unit_tokens,
        "unit_estimator": unit_tokens and "straight_through" in estimators,
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
    places = (output_at, indices_at, None if unit_codes and not unit_tokens else loss_at)
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
            (mask or "mask", lengths or "lengths"),
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
        require_of_average(described, instance, paths)
    padding = {name: argument for name, argument in (("mask", mask), ("lengths", lengths)) if argument is not None}
    if call is None:
        _require_arguments(probed.module, padding)
    described = with_layers(described, declared, probed.module, trained)
    if described.lasting is None and (padding or stack or average):
        raise ValueError(f"codebook is {codebook!r}, which sets no parameter or buffer: expected a path")
    if mask is not None:
        require_polarity(declared, mask)
    if padding and described.lasting is not None:
        lasting = replace(described.lasting, padded_output=padded_output, padded_index=padded_index)
        described = replace(described, capabilities=described.capabilities | set(padding), lasting=lasting)
    if not stack:
        return described
    reading = reading_of(
        layouts, places, call, decode, (), 0 if loss_reduction == "sum" else None, freeze, stacked=True
    )
    return with_stacks(described, make, paths, reading, loss_at, trained, stack_flow, stack_gain, torch_dtype)


def _require_weights(weights: Weights) -> None:
    """Raise ValueError for a function of the wanted layer that does not know what that has."""
    try:
        _, _ = weights(reference_of(None))
    except Exception as error:
        raise ValueError(
            f"loss_weights raises {type(error).__name__}: {error}: expected (a, b), or a function of the wanted layer, "
            "which has beta, commitment_weight and codebook, (K, D)"
        ) from error


def _require_its_places(layer: TorchLayer, x: Array, indices_at: Place | None, loss_at: Place | None) -> None:
    """Call a layer once, so that a wrong place is one error and not one of every law. What else it raises, laws say."""
    try:
        answer = layer(x)
    except DeclarationContradicted:
        raise
    except Exception:
        return
    for name, place, found in (("indices_at", indices_at, answer.indices), ("loss_at", loss_at, answer.loss)):
        if place is not None and found is None:
            raise DeclarationContradicted(name, repr(place), "None in training", "give None where there is none")
    form = answer.form
    if layer.layouts.loss is None and form is not None and np.prod(form.loss_shape) != 1:
        remedy = "give loss_shape, or a function that takes the mean: loss_at=lambda returned: returned[2].mean()"
        raise DeclarationContradicted("loss_at", repr(loss_at), f"a loss of shape {form.loss_shape}", remedy)


def _require_its_state(layer: TorchLayer, x: Array, state_changes: frozenset[str]) -> None:
    """Raise DeclarationContradicted for names that a layer does not have, nor has once it was called in eval."""
    if state_changes:
        with contextlib.suppress(Exception):  # of what a module may give there, laws judge what was declared
            layer(x, how=Call(training=False))
    names = {bare(name) for name in layer.state()}
    if unknown := sorted(state_changes - names):
        there = ", ".join(sorted(names)) or "none"
        raise DeclarationContradicted("state_changes", repr(unknown), f"no such parameter or buffer among {there}")


def _require_arguments(module: nn.Module, padding: dict[str, str]) -> None:
    """Raise DeclarationContradicted for a mask or lengths that forward has no argument for."""
    taken = inspect.signature(module.forward).parameters
    for name, argument in padding.items():
        if argument.removeprefix("~") not in taken:
            raise DeclarationContradicted(name, repr(argument), f"forward({', '.join(taken)})")


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


def _sizes(instance: nn.Module, codebook: Any) -> tuple[int, int]:
    if callable(codebook):
        raise ValueError("sizes is None, and codebook a function: expected sizes=(D, K) for an instance")
    shape = codes_of(instance, codebook).shape
    return int(shape[-1]), int(shape[-2])


def _tensor(what: str, returned: Any, place: Place, floating: bool) -> Any:
    """Return the tensor at a place, or None where None sits there; of several losses, one tensor.

    Raises DeclarationContradicted for anything else.
    """
    found = at(what, returned, place)
    if isinstance(found, (list, tuple)) and found and all(isinstance(each, Tensor) for each in found):
        found = torch.stack(list(found))
    if found is not None and not (isinstance(found, Tensor) and found.dtype.is_floating_point == floating):
        kind = "a floating tensor" if floating else "a tensor of integers"
        raise DeclarationContradicted(what, repr(place), f"{outline(found)} in {outline(returned)}", f"expected {kind}")
    return found
