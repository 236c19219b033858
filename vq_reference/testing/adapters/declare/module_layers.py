"""What is declared of a module's layers, as the laws of all that follows from being a torch module see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from vq_reference.simvq import SimVQ
from vq_reference.testing.adapters.declare.declared_module import (
    Declared,
    projection_capabilities,
    reference_of,
    require_its_codes,
)
from vq_reference.testing.adapters.declare.moving_average import require_that_it_moves
from vq_reference.testing.adapters.torch.stateful_layer import COMPILES, cast_to, compiled
from vq_reference.testing.interface.implementation import Implementation
from vq_reference.testing.interface.stateful import Lasting
from vq_reference.vector_quantize import VectorQuantize

Weights = Callable[[SimVQ], tuple[float, float]]


def with_layers(described: Implementation, declared: Declared, module: nn.Module, trained: bool) -> Implementation:
    """Return the implementation with layers that are kept, saved, copied and cast as any torch module."""
    if not declared.readable:
        return described
    average = declared.average
    require_its_codes(declared)
    if average is not None:
        require_that_it_moves(declared.build, average, declared.codebook)
    offered = {"lasting", *(["compiled"] if COMPILES else []), *declared.casts()}
    # what has no gradient at all has no backward in which a checkpoint would call it again
    offered |= {"checkpoint"} if described.offers & {"trains_input", "any_loss"} else set()
    if declared.sizes is None:  # those of an instance have its widths, and are placed as the identity
        offered |= projection_capabilities(module, (declared.project_in, declared.project_out))
    if average is not None:
        offered |= average.capabilities
    else:
        offered |= {"trained"} if trained else set()
        offered |= set() if described.state_changes else {"quiet_without_grad"}
    weighed = described.loss_weights if "any_loss" in described.offers else (lambda _: (0.0, 0.0))
    lasting = Lasting(
        declared.build,
        declared.ways_to_carry(),
        cast_to,
        compiled,
        loss_in_eval=described.eval_loss == "as training",
        straight_through=bool(described.capabilities & {"estimator:straight_through", "unit_estimator"}),
        means=partial(_meant, described, weighed),
    )
    return replace(described, capabilities=described.capabilities | offered, lasting=lasting)


def _meant(described: Implementation, weighed: Weights, layer: VectorQuantize) -> VectorQuantize:
    """Return what a layer is by what was declared, for the one that was asked for."""
    _, size, width = layer.codes.shape
    asked = replace(reference_of((width, size)), beta=layer.beta, commitment_weight=layer.commitment_weight)
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


def require_of_average(described: Implementation, instance: nn.Module | None, codebook: Any) -> None:
    """Raise ValueError for an average of what cannot be built anew for each law, or has no path for its codes."""
    if instance is not None or described.sizes is not None:
        raise ValueError("average is given for an instance: expected a function that makes one of any size")
    if not isinstance(codebook, str):
        raise ValueError(
            "average is given, and codebook is no path: expected a path, with project_in= and project_out= where the "
            "codes lie between projections"
        )
