"""SimVQ in torch: ours, and vector-quantize-pytorch's in any release since 1.20.0, whose constructor has changed."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor, nn

import vq_reference
from vq_reference.simvq import SimVQ
from vq_reference.testing.adapters.codegen.simvq_script import sim_vq_script
from vq_reference.testing.adapters.declare.declared_module import SIZES, Asked, Declared
from vq_reference.testing.adapters.declare.module_layers import with_layers
from vq_reference.testing.adapters.torch.codebooks import ThroughLinear
from vq_reference.testing.adapters.torch.layer import Layouts, Returned, TorchLayer
from vq_reference.testing.adapters.torch.reading import reading_of
from vq_reference.testing.adapters.torch.tensors import sequential, set_exactly
from vq_reference.testing.interface.implementation import Implementation
from vq_reference.testing.interface.precision import PRECISIONS

# how each constructor argument has been called, newest name first
BETA = ("input_to_quantize_commit_loss_weight", "commit_loss_input_to_quantize_weight")
FIRST = ("channel_first", "accept_image_fmap")
DECODE = "indices_to_codes"
ALWAYS = {
    *("estimator:straight_through", "estimator:rotation", "indices", "loss", "codebook_gradient", "transform"),
    *("state", "step", "form", "eval"),
}


def reference_module(channel_first: bool = False, dtype: str = "float32", device: str = "cpu") -> Implementation:
    """Return `vq_reference.nn.SimVQ`."""
    from vq_reference.nn import SimVQ as Module

    versions = {"vq-reference": vq_reference.__version__}
    return sim_vq(_named("reference.SimVQ", channel_first), Module, versions, channel_first, dtype, device)


def lucidrains(channel_first: bool = False, dtype: str = "float32", device: str = "cpu") -> Implementation:
    """Return vector-quantize-pytorch's SimVQ, of whichever release is importable. Raises ImportError when none is."""
    package = importlib.import_module("vector_quantize_pytorch")
    try:
        release = version("vector-quantize-pytorch")
    except PackageNotFoundError:
        release = "unknown"
    versions = {"vector-quantize-pytorch": release}
    return sim_vq(_named("lucidrains.SimVQ", channel_first), package.SimVQ, versions, channel_first, dtype, device)


def _named(name: str, channel_first: bool) -> str:
    return f"{name}[channel_first]" if channel_first else name


def sim_vq(
    name: str,
    module_class: Any,
    versions: dict[str, str],
    channel_first: bool = False,
    dtype: str = "float32",
    device: str = "cpu",
) -> Implementation:
    """Describe a class with the constructor of vector-quantize-pytorch's SimVQ.

    Releases before 1.20.2 take no transform but their own linear one. Those before 1.20.9 know no `channel_first`, take
    (B, N, D) or (B, D, H, W) and no other rank.
    """
    known = inspect.signature(module_class).parameters
    takes_transform, any_rank = "codebook_transform" in known, "channel_first" in known
    axes = {(False, False): "B T D", (False, True): "... D", (True, False): "B D H W", (True, True): "B D ..."}
    layouts = Layouts.of(axes[channel_first, any_rank], loss=())

    def build(reference: SimVQ) -> TorchLayer:
        place, torch_dtype = torch.device(device), getattr(torch, dtype)
        transform, parameters = sequential(reference.transform, torch_dtype, place)
        codebook_size, frozen_dim = reference.frozen_codebook.shape
        arguments = {
            "dim": reference.transform[-1].weight.shape[0],
            "codebook_size": codebook_size,
            "rotation_trick": reference.estimator == "rotation",
            next(name for name in BETA if name in known): reference.beta,
            next(name for name in FIRST if name in known): channel_first,
        }
        optional = {
            "codebook_transform": transform,
            "commitment_weight": reference.commitment_weight,
            "frozen_codebook_dim": frozen_dim,
        }
        arguments.update({k: v for k, v in optional.items() if k in known})
        module = module_class(**arguments).to(place, torch_dtype)
        codes = "frozen_codebook" if hasattr(module, "frozen_codebook") else "codebook"
        if getattr(module, codes).shape != reference.frozen_codebook.shape:  # no argument for its width
            setattr(module, codes, torch.empty(reference.frozen_codebook.shape, dtype=torch_dtype, device=place))
        set_exactly(getattr(module, codes), reference.frozen_codebook)
        if not takes_transform:
            module.codebook_to_codes = transform
        weight = 1.0 if "commitment_weight" in known else reference.commitment_weight

        def changed(other: SimVQ) -> None:
            for i, layer in enumerate(other.transform):
                set_exactly(parameters[f"{i}.weight"], layer.weight)
                if layer.bias is not None:
                    set_exactly(parameters[f"{i}.bias"], layer.bias)

        def read(returned: tuple[Tensor, Tensor, Tensor]) -> Returned:
            output, indices, loss = returned
            return Returned(output, indices, loss * weight)

        return TorchLayer(
            module,
            call=module,
            dtype=torch_dtype,
            device=place,
            read=read,
            codes=transform,
            parameters=parameters,
            frozen=getattr(module, codes),
            layouts=layouts,
            decode_indices=getattr(module, DECODE, None),
            changed=changed,
        )

    optional = {"mlp": takes_transform, "leading": any_rank, "decode": hasattr(module_class, DECODE)}
    described = Implementation(
        name=name,
        build=build,
        precision=PRECISIONS[dtype],
        capabilities=frozenset(ALWAYS | {capability for capability, there in optional.items() if there}),
        versions={**versions, "torch": torch.__version__},
        script=sim_vq_script(
            module_class.__module__.partition(".sim_vq")[0],
            layouts,
            dtype,
            takes_transform,
            DECODE if hasattr(module_class, DECODE) else "",
        ),
    )
    return described if device != "cpu" else _with_layers(described, module_class, channel_first, layouts, dtype)


def _with_layers(
    described: Implementation, module_class: Any, channel_first: bool, layouts: Layouts, dtype: str
) -> Implementation:
    """Return the implementation with layers that are kept, saved, copied and cast; without a weight, where none is."""
    known = inspect.signature(module_class).parameters
    weighted = "commitment_weight" in known

    def made(asked: Asked) -> nn.Module:
        optional = {
            "codebook_transform": nn.Linear(asked.dim, asked.dim, bias=False),
            "frozen_codebook_dim": asked.dim,
            "commitment_weight": asked.commitment_weight,
        }
        arguments = {
            "dim": asked.dim,
            "codebook_size": asked.codebook_size,
            "rotation_trick": False,
            next(name for name in BETA if name in known): asked.beta,
            next(name for name in FIRST if name in known): channel_first,
            **{name: value for name, value in optional.items() if name in known},
        }
        module: nn.Module = module_class(**arguments).to(getattr(torch, dtype))
        return module

    module: Any = made(Asked(*SIZES, "straight_through", 0.25, 1.0))
    frozen = "frozen_codebook" if hasattr(module, "frozen_codebook") else "codebook"
    linear = next(name for name, part in module.named_children() if isinstance(part, nn.Linear))
    reading = reading_of(layouts, (0, 1, 2), None, DECODE if hasattr(module_class, DECODE) else None)
    declared = Declared(made, ThroughLinear(frozen, linear), reading, "straight_through", getattr(torch, dtype))
    weights = (lambda wanted: (1.0, wanted.beta)) if not weighted else described.loss_weights
    layered = with_layers(replace(described, loss_weights=weights), declared, module, trained=True)
    return replace(layered, loss_weights=described.loss_weights)
