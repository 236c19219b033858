"""What the check of gradients by replay says of the layer of a case: is autograd consistent with its own stops?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from vq_reference.testing.adapters.torch.layer import TorchLayer
from vq_reference.testing.adapters.torch.stateful_layer import LastingTorch
from vq_reference.testing.cases.answers import Makers
from vq_reference.testing.cases.case import PinnedCase
from vq_reference.testing.cases.expected import sim_vq_of
from vq_reference.testing.derivatives import check_gradient
from vq_reference.testing.derivatives.shares import measure_shares


class Replayed(NamedTuple):
    """What replay says of a layer.

    verdict, reason: of the check. no_gradient: output → the tensors that it sends none to. routing: the name of the way
    that a SimVQ's loss divides its derivative, or why it has none; empty for other layers.
    """

    verdict: str
    reason: str
    no_gradient: dict[str, list[str]]
    routing: str


def replay(case: PinnedCase, makers: Makers, dtype: str) -> Replayed:
    """Check the layer's output and losses as functions of x and of its parameters, all entries of the Jacobians.

    dtype: to run it in; float32 for a release that casts to it by itself.
    """
    report = check_gradient(_program(case, makers), torch.as_tensor(case.x), full=True, dtype=getattr(torch, dtype))
    named = {output: list(tensors) for output, tensors in report.no_gradient.items()}
    routing = _routing(case, makers) if case.layer["object"] == "SimVQ" else ""
    return Replayed(report.verdict.value, report.reason, named, routing)


def _routing(case: PinnedCase, makers: Makers) -> str:
    reference = sim_vq_of(case.layer)
    layer = cast(TorchLayer, makers.sim_vq(reference, "float64"))
    x = torch.as_tensor(case.x).requires_grad_()

    def loss() -> Tensor:
        found = layer.read(layer.module(x)).loss
        assert found is not None
        return found

    try:
        return measure_shares(loss, [x], list(layer.parameters.values()), beta=reference.beta).pattern
    except ValueError as reason:
        return str(reason)


def _program(case: PinnedCase, makers: Makers) -> Callable[[Tensor], Any]:
    if case.layer["object"] == "SimVQ":
        layer = cast(TorchLayer, makers.sim_vq(sim_vq_of(case.layer), case.dtype))
        module, read = layer.module, layer.read
        return lambda x: read(module(x))._asdict()
    lasting = cast(LastingTorch, makers.lasting(case))
    module, call = lasting.module, lasting.access.call
    return lambda x: call(module, x, None, None)._asdict()
