"""The laws on a quantizer of your own: all that a user imports stands here.

Say what your module is:

- `torch_quantizer`: a torch module, from where its input, output, loss and codes lie;
- `torch_estimator`, `jax_estimator`: a bare function with a gradient;
- `BetweenProjections`, `ThroughLinear`, `Turned`: codes that are no tensor of the module, but computed from one;
- `MovingAverage`: codes that are moving averages, and what the module keeps of them;
- `Implementation`: what all of these return, and what the laws are run on;
- `DeclarationContradicted`: what is raised where the module does not do what was said of it.

Hold it to the laws, in a test of your own: `assert_conforms`. Check a gradient through stop-gradients, on any torch
program: `check_gradient`, and `measure_shares` of a quantizer's loss.

Each is imported when it is asked for, since most of what is below this package needs neither torch nor hypothesis.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vq_reference.testing.adapters.declare.estimator import jax_estimator, torch_estimator
    from vq_reference.testing.adapters.declare.moving_average import MovingAverage
    from vq_reference.testing.adapters.declare.torch_quantizer import torch_quantizer
    from vq_reference.testing.adapters.torch.codebooks import BetweenProjections, ThroughLinear, Turned
    from vq_reference.testing.conform import assert_conforms
    from vq_reference.testing.derivatives.check import check_gradient
    from vq_reference.testing.derivatives.shares import measure_shares
    from vq_reference.testing.interface.errors import DeclarationContradicted
    from vq_reference.testing.interface.implementation import Implementation

__all__ = [
    "BetweenProjections",
    "DeclarationContradicted",
    "Implementation",
    "MovingAverage",
    "ThroughLinear",
    "Turned",
    "assert_conforms",
    "check_gradient",
    "jax_estimator",
    "measure_shares",
    "torch_estimator",
    "torch_quantizer",
]

_HOMES = {
    "BetweenProjections": "adapters.torch.codebooks",
    "DeclarationContradicted": "interface.errors",
    "Implementation": "interface.implementation",
    "MovingAverage": "adapters.declare.moving_average",
    "ThroughLinear": "adapters.torch.codebooks",
    "Turned": "adapters.torch.codebooks",
    "assert_conforms": "conform",
    "check_gradient": "derivatives.check",
    "jax_estimator": "adapters.declare.estimator",
    "measure_shares": "derivatives.shares",
    "torch_estimator": "adapters.declare.estimator",
    "torch_quantizer": "adapters.declare.torch_quantizer",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
