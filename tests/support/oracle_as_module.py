"""The oracle as a torch module, so that a script can call it: a fault of the formulas is then one of somebody's layer.

It has the constructor of SimVQ. Its backward is the oracle's hand-derived one.
"""

import numpy as np
import torch
from torch import nn

from vq_reference.codebook import Layer
from vq_reference.simvq import SimVQ as Oracle


class Quantize(torch.autograd.Function):
    """One call of the oracle: tokens, codes and the transform's parameters → output, indices and loss."""

    @staticmethod
    def forward(ctx, x, codes, oracle, *parameters):
        ctx.oracle, ctx.x = oracle, x.detach().double().numpy()
        found = oracle.forward(ctx.x)
        output, loss = (torch.from_numpy(np.array(each)).to(x.dtype) for each in (found.output, found.loss))
        return output, torch.from_numpy(np.array(found.indices)), loss

    @staticmethod
    def backward(ctx, g, _, at_loss):
        at = ctx.oracle.gradients(ctx.x, g.double().numpy(), float(at_loss))
        of_layers = [each for layer in at.transform for each in (layer.weight, layer.bias) if each is not None]
        at_x, at_codes, *others = (
            torch.from_numpy(np.array(each)).to(g.dtype) for each in (at.x, at.codebook, *of_layers)
        )
        return at_x, at_codes, None, *others


class SimVQ(nn.Module):
    """A SimVQ that asks the oracle."""

    def __init__(
        self,
        dim,
        codebook_size,
        codebook_transform,
        frozen_codebook_dim,
        rotation_trick=True,
        input_to_quantize_commit_loss_weight=0.25,
        commitment_weight=1.0,
        channel_first=False,
    ):
        super().__init__()
        self.code_transform = codebook_transform
        self.register_buffer("frozen_codebook", torch.zeros(codebook_size, frozen_codebook_dim))
        self.said = {
            "estimator": "rotation" if rotation_trick else "straight_through",
            "beta": input_to_quantize_commit_loss_weight,
            "commitment_weight": commitment_weight,
        }

    def oracle(self):
        layers = [each for each in self.code_transform.modules() if isinstance(each, nn.Linear)]
        transform = tuple(Layer(_array(each.weight), _array(each.bias)) for each in layers)
        return Oracle(_array(self.frozen_codebook), transform, **self.said)

    def forward(self, x):
        with torch.no_grad():  # its codes are a leaf: what arrives there does not go on to the transform
            codes = self.code_transform(self.frozen_codebook)
        tokens, codes = x.reshape(-1, x.shape[-1]), codes.requires_grad_()
        output, indices, loss = Quantize.apply(tokens, codes, self.oracle(), *self.code_transform.parameters())
        return output.reshape(x.shape), indices.reshape(x.shape[:-1]), loss


def _array(tensor):
    return None if tensor is None else tensor.detach().double().numpy()
