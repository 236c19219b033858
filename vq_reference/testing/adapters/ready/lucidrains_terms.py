"""What vector-quantize-pytorch's VectorQuantize adds to its loss beside the commitment: diversity and orthogonality.

Each is the whole loss of a layer whose commitment weighs nothing. Neither perplexity nor usage is offered.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from vq_reference.arguments import Array
from vq_reference.testing.adapters.torch.auxiliary_terms import differentiated
from vq_reference.testing.interface.auxiliary import Auxiliary, Term

SCRIPT = """from vector_quantize_pytorch import VectorQuantize

layer = VectorQuantize(
    dim=codes.shape[1], codebook_size=len(codes), learnable_codebook=True, ema_update=False, commitment_weight=0.0,
    {weights},
)
embed = layer._codebook.embed
entering = {x}
returned = torch.func.functional_call(layer, {{"_codebook.embed": codes.reshape(embed.shape)}}, (entering,))
value = torch.as_tensor(returned[2]).reshape(())"""
SCRIPTS = {
    "diversity": SCRIPT.format(
        weights="codebook_diversity_loss_weight=1.0, codebook_diversity_temperature=temperature",
        x="x.reshape(*leading, -1)",
    ),
    "orthogonality": SCRIPT.format(weights="orthogonal_reg_weight=1.0", x="codes.detach()[None, :1]"),
}


def terms_of(package: Any) -> Auxiliary:
    """Return the terms that this release of the package has."""
    known = inspect.signature(package.VectorQuantize).parameters

    def of_tokens(x: Array, leading: tuple[int, ...], codes: Array, temperature: float) -> Term:
        weights = {"codebook_diversity_loss_weight": 1.0, "codebook_diversity_temperature": temperature}
        return _term(package, x, leading, codes, weights)

    def of_codes(codes: Array) -> Term:
        term = _term(package, codes[:1], (1, 1), codes, {"orthogonal_reg_weight": 1.0})
        return term._replace(x=None)

    return Auxiliary(
        diversity=of_tokens if "codebook_diversity_loss_weight" in known else None,
        orthogonality=of_codes if "orthogonal_reg_weight" in known else None,
        script=SCRIPTS.__getitem__,
    )


def _term(package: Any, x: Array, leading: tuple[int, ...], codes: Array, weights: dict[str, float]) -> Term:
    """Return the loss of a layer that has one term, at tokens and at codes that a gradient trains."""
    module = package.VectorQuantize(
        dim=codes.shape[1],
        codebook_size=len(codes),
        learnable_codebook=True,
        ema_update=False,
        commitment_weight=0.0,
        **weights,
    )
    embed: torch.nn.Parameter = module._codebook.embed

    def loss(x: Tensor, codes: Tensor) -> Tensor:
        given = torch.func.functional_call(
            module, {"_codebook.embed": codes.reshape(embed.shape)}, (x.reshape(*leading, -1),)
        )
        return torch.as_tensor(given[2]).reshape(())

    return differentiated(loss, x, codes, torch.float32)
