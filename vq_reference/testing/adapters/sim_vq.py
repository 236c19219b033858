"""SimVQ in torch: ours, and vector-quantize-pytorch's in any release since 1.20.0, whose constructor has changed."""

from __future__ import annotations

import importlib
import inspect
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor, nn

import vq_reference
from vq_reference.simvq import SimVQ
from vq_reference.testing.adapters.implementation import Implementation
from vq_reference.testing.adapters.scripts import sim_vq_script
from vq_reference.testing.adapters.torch_layer import Returned, TorchLayer, sequential, set_exactly
from vq_reference.testing.precision import PRECISIONS

# how each constructor argument has been called, newest name first
BETA = ("input_to_quantize_commit_loss_weight", "commit_loss_input_to_quantize_weight")
ALWAYS = {"estimator:straight_through", "estimator:rotation", "indices", "loss", "codebook_gradient", "transform"}


def reference_module() -> Implementation:
    """Return `vq_reference.nn.SimVQ`."""
    from vq_reference.nn import SimVQ as Module

    return sim_vq("reference.SimVQ", Module, {"vq-reference": vq_reference.__version__})


def lucidrains() -> Implementation:
    """Return vector-quantize-pytorch's SimVQ, of whichever release is importable. Raises ImportError when none is."""
    package = importlib.import_module("vector_quantize_pytorch")
    try:
        release = version("vector-quantize-pytorch")
    except PackageNotFoundError:
        release = "unknown"
    return sim_vq("lucidrains.SimVQ", package.SimVQ, {"vector-quantize-pytorch": release})


def sim_vq(name: str, module_class: Any, versions: dict[str, str], dtype: str = "float32") -> Implementation:
    """Describe a class with the constructor of vector-quantize-pytorch's SimVQ.

    Releases before 1.20.2 take no transform but their own linear one, and those before 1.20.9 no rank below 3: the laws
    hand in (1, N, D).
    """
    known = inspect.signature(module_class).parameters
    takes_transform = "codebook_transform" in known

    def build(reference: SimVQ) -> TorchLayer:
        device, torch_dtype = torch.device("cpu"), getattr(torch, dtype)
        transform, parameters = sequential(reference.transform, torch_dtype, device)
        codebook_size, frozen_dim = reference.frozen_codebook.shape
        arguments = {
            "dim": reference.transform[-1].weight.shape[0],
            "codebook_size": codebook_size,
            "rotation_trick": reference.estimator == "rotation",
            next(name for name in BETA if name in known): reference.beta,
        }
        optional = {
            "codebook_transform": transform,
            "commitment_weight": reference.commitment_weight,
            "frozen_codebook_dim": frozen_dim,
        }
        arguments.update({k: v for k, v in optional.items() if k in known})
        module = module_class(**arguments).to(device, torch_dtype)
        frozen = torch.empty(reference.frozen_codebook.shape, dtype=torch_dtype, device=device)
        set_exactly(frozen, reference.frozen_codebook)
        if takes_transform:
            module.frozen_codebook = frozen
        else:
            module.codebook, module.codebook_to_codes = frozen, transform
        weight = 1.0 if "commitment_weight" in known else reference.commitment_weight

        def call(layer: nn.Module, x: Tensor) -> Returned:
            output, indices, loss = layer(x)
            return Returned(output, indices, loss * weight)

        return TorchLayer(module, call, transform, parameters, torch_dtype, device)

    return Implementation(
        name=name,
        build=build,
        precision=PRECISIONS[dtype],
        capabilities=frozenset(ALWAYS | ({"mlp"} if takes_transform else set())),
        versions={**versions, "torch": torch.__version__},
        script=sim_vq_script(module_class.__module__.partition(".sim_vq")[0], takes_transform),
    )
