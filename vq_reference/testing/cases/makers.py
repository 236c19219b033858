"""How the reference and vector-quantize-pytorch, in any release, make the layers of cases."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from vq_reference.nn.diversity import diversity
from vq_reference.simvq import SimVQ
from vq_reference.testing.adapters.ready import simvq
from vq_reference.testing.adapters.ready.oracle import oracle
from vq_reference.testing.adapters.ready.vector_quantize import build, build_stack
from vq_reference.testing.adapters.torch.layer import Layouts, TorchLayer
from vq_reference.testing.adapters.torch.stateful_layer import Access, Given, LastingTorch
from vq_reference.testing.cases.answers import Makers
from vq_reference.testing.cases.case import PinnedCase
from vq_reference.testing.cases.expected import stack_of, vector_quantize_of
from vq_reference.testing.interface.implementation import Layer
from vq_reference.testing.interface.stateful import Averaging, LastingLayer, Wanted, WantedStack


def reference() -> Makers:
    """Return how `vq_reference.nn` makes them."""
    return Makers(_reference_sim_vq, _reference_lasting)


def in_numpy() -> Makers:
    """Return how the oracle makes them, for faults that are put into it; it has no lasting layers."""
    return Makers(lambda wanted, dtype: oracle().build(wanted), _reference_lasting)


def lucidrains() -> Makers:
    """Return how vector-quantize-pytorch makes them, of the release that is imported first."""
    return Makers(_lucidrains_sim_vq, _lucidrains_lasting)


def _reference_sim_vq(wanted: SimVQ, dtype: str) -> Layer:
    return simvq.reference_module(dtype=dtype).build(wanted)


def _reference_lasting(case: PinnedCase) -> LastingLayer:
    layer = case.layer
    if layer["object"] != "VectorQuantize":
        return build_stack(WantedStack(stack_of(layer), layer_dropout="kept" in layer))
    averaging = None
    if layer["codes_learn_by"] == "ema":
        averaging = Averaging(layer["decay"], layer["epsilon"], 0.0, layer.get("initialise_from_data", False))
    made = cast(LastingTorch, build(Wanted(vector_quantize_of(layer), averaging)))
    return _with_diversity(made, layer) if "diversity_weight" in layer else made


def _with_diversity(made: LastingTorch, layer: Any) -> LastingTorch:
    """Return the layer with the diversity of its codes in its loss."""

    def call(module: nn.Module, x: Tensor, mask: Tensor | None, lengths: Tensor | None) -> Given:
        given = made.access.call(module, x, mask, lengths)
        (codes,) = made.access.codes(module)
        term = diversity(x, codes, layer["diversity_temperature"])
        return given._replace(losses=given.losses + layer["diversity_weight"] * term)

    return replace(made, access=replace(made.access, call=call))


def _lucidrains_sim_vq(wanted: SimVQ, dtype: str) -> Layer:
    layer = cast(TorchLayer, simvq.lucidrains(dtype=dtype).build(wanted))
    # of any rank, also where the adapter knows that a release refuses it: that is what a case is to show
    return replace(layer, layouts=Layouts.of("... D", loss=()))


def _lucidrains_lasting(case: PinnedCase) -> LastingLayer:
    package = importlib.import_module("vector_quantize_pytorch")
    layer = case.layer
    makes = {
        "VectorQuantize": _vector_quantize,
        "ResidualVQ": _residual_vq,
        "ResidualSimVQ": _residual_sim_vq,
    }
    module = makes[layer["object"]](package, layer)
    return LastingTorch(module, Access(_call, _codes))


def _vector_quantize(package: Any, layer: Any) -> nn.Module:
    (codes,) = layer["codes"]
    learns, takes = layer["codes_learn_by"], inspect.signature(package.VectorQuantize).parameters
    wanted: dict[str, Any] = {"commitment_weight": layer["commitment_weight"] * layer["beta"]}
    if learns == "gradient":
        wanted |= {"learnable_codebook": True, "ema_update": False, "commitment_weight": layer["commitment_weight"]}
    if learns == "ema":
        from_data = layer.get("initialise_from_data", False)
        wanted |= {"decay": layer["decay"], "eps": layer["epsilon"], "kmeans_init": from_data}
    if "rotation_trick" in takes:
        wanted["rotation_trick"] = layer["estimator"] == "rotation"
    if "diversity_weight" in layer:
        wanted["codebook_diversity_loss_weight"] = layer["diversity_weight"]
        wanted["codebook_diversity_temperature"] = layer["diversity_temperature"]
    if layer["estimator"] == "directional":
        # without noise; a threshold has to be given, and codes start with a count of 1, which is not below it
        noiseless = {"directional_reparam": True, "directional_reparam_variance": 0.0, "threshold_ema_dead_code": 1}
        wanted |= noiseless
    module: nn.Module = package.VectorQuantize(dim=codes.shape[1], codebook_size=len(codes), **wanted)
    _place(module, codes, frozen=learns == "nothing")
    return module


def _residual_vq(package: Any, layer: Any) -> nn.Module:
    codes = layer["codes"]
    wanted: dict[str, Any] = {"commitment_weight": layer["commitment_weight"] * layer["beta"]}
    if "rotation_trick" in inspect.signature(package.VectorQuantize).parameters:
        wanted["rotation_trick"] = layer["estimator"] == "rotation"
    module: Any = package.ResidualVQ(
        dim=codes[0].shape[1], num_quantizers=len(codes), codebook_size=len(codes[0]), **wanted
    )
    for each, its in zip(module.layers, codes, strict=True):
        _place(each, its, frozen=True)
    return cast(nn.Module, module)


def _residual_sim_vq(package: Any, layer: Any) -> nn.Module:
    codes = layer["codes"]
    module: Any = package.ResidualSimVQ(
        dim=codes[0].shape[1],
        num_quantizers=len(codes),
        codebook_size=len(codes[0]),
        quantize_dropout="kept" in layer,
        rotation_trick=layer["estimator"] == "rotation",
        input_to_quantize_commit_loss_weight=layer["beta"],
    )
    for each, its in zip(module.layers, codes, strict=True):
        transform = each.code_transform if hasattr(each, "code_transform") else each.codebook_to_codes
        with torch.no_grad():
            transform.weight.copy_(torch.eye(its.shape[1]))
            (each.frozen_codebook if hasattr(each, "frozen_codebook") else each.codebook).copy_(torch.as_tensor(its))
    return cast(nn.Module, module)


def _place(module: Any, codes: Any, frozen: bool) -> None:
    """Set the codes, and the sums that a moving average makes them of; keep them as they are where they are frozen."""
    codebook = module._codebook
    with torch.no_grad():
        for name in ("embed", "embed_avg"):
            tensor = getattr(codebook, name, None)
            if tensor is not None:
                tensor.copy_(torch.as_tensor(codes).reshape(tensor.shape))
    if frozen:
        codebook.train = lambda mode=True: codebook  # the average moves in training only, in every release
        codebook.training = False


def _call(module: Any, x: Tensor, mask: Tensor | None, lengths: Tensor | None) -> Given:
    output, indices, losses = module(x, **({} if mask is None else {"mask": mask}))[:3]
    return Given(output, indices, losses.reshape(-1))


def _codes(module: Any) -> Tensor:
    """Return the codes of a single layer; of a stack none, whose cases have no step."""
    codebook = getattr(module, "_codebook", None)
    return torch.empty(0) if codebook is None else cast(Tensor, codebook.embed)
