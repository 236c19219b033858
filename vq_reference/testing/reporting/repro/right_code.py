"""Right code in the conventions that an adapter declares, as lines of plain torch: a script has to hold on it.

It is not handed out.
"""

from __future__ import annotations

import dataclasses

from vq_reference.arguments import Array
from vq_reference.simvq import SimVQ
from vq_reference.testing.adapters.codegen.module_script import Script
from vq_reference.testing.adapters.codegen.simvq_script import sim_vq_script
from vq_reference.testing.adapters.codegen.source import exactly
from vq_reference.testing.adapters.torch.layer import CHANNEL_LAST
from vq_reference.testing.interface.implementation import Call, Implementation
from vq_reference.testing.interface.torch_source import Written


def right_code(tested: Implementation) -> Script:
    """Return what writes right code in the conventions that the adapter declares, in eval mode too.

    The same for any tokens, and however they lie: it takes them as (N, D).
    """

    def script(reference: SimVQ, x: Array, how: Call) -> Written:
        plain = Call(training=how.training)
        if not how.training and tested.eval_estimator != "as training":
            reference = dataclasses.replace(reference, estimator=tested.eval_estimator)
        if "transform" in tested.capabilities:
            ours = sim_vq_script("vq_reference.nn", CHANNEL_LAST, tested.precision.name, True, "indices_to_codes")
            return ours(reference, x, plain)
        a, b = tested.loss_weights(reference)
        c = a + b if tested.loss_value is None else tested.loss_value(reference)
        weights = (0.0, 0.0, 0.0) if not how.training and tested.eval_loss == "zero" else (a, b, c)
        return _layer(weights, tested, reference)

    return script


def _layer(weights: tuple[float, float, float], tested: Implementation, reference: SimVQ) -> Written:
    """Return the lines of a layer. weights: of the codebook half, the encoder half and the value."""
    a, b, c = weights
    reduction, metric = tested.loss_reduction, tested.metric
    outputs = "torch.nn.functional.normalize(codes, dim=1)" if tested.unit_codes else "codes"
    unit = "torch.nn.functional.normalize({}.detach().double(), dim=1)"
    near = "-" + unit.format("x") + " @ " + unit.format("codes") + ".T"
    far = 'torch.cdist(x.detach().double(), codes.detach().double(), compute_mode="donot_use_mm_for_euclid_dist")'
    carried = {"none": "q.detach()"}.get(reference.estimator, "estimate(x, q)")
    imported = {"rotation": "rotate"}.get(reference.estimator, "straight_through")
    make = [
        f"from vq_reference.nn.estimators import {imported} as estimate",
        f"codes = torch.nn.Parameter({exactly(reference.codebook)}.to(x.dtype))",
        "layer = torch.nn.ParameterList([codes])",
        "def at_codes(start): return gradient(start, codes)",
    ]
    call = [
        f"indices = ({near if metric == 'cosine' else far}).argmin(dim=1)",
        f"q = {outputs}[indices]",
        f"output = {carried}",
        f"loss = {a!r} * (x.detach() - q).square().{reduction}()",
        f"loss = loss + {b!r} * (x - q.detach()).square().{reduction}()",
        f"loss = loss + {c - a - b!r} * (x - q).detach().square().{reduction}()",
        "returned = (output, indices, loss)",
    ]
    return Written("\n".join(make), "\n".join(call), "after = x", lambda count: f"decoded = {outputs}[chosen]")
