"""Shape 6: an estimator alone, a function of tokens and their codes; here the rotation trick, from its formula."""

import torch
from torch.nn.functional import normalize

from vq_reference.testing import torch_estimator


def rotate(x, q):
    """λRx with R = I − 2ww' + 2q̂x̂' and λ held constant."""
    with torch.no_grad():
        x_hat, q_hat = normalize(x, dim=-1), normalize(q, dim=-1)
        w = normalize(x_hat + q_hat, dim=-1)
        ratio = q.norm(dim=-1, keepdim=True) / x.norm(dim=-1, keepdim=True)

    def along(a, b):
        return (a * b).sum(dim=-1, keepdim=True)

    return ratio * (x - 2 * w * along(w, x) + 2 * q_hat * along(x_hat, x))


def adapter():
    """Return what the laws need to know of it."""
    return torch_estimator(rotate, "rotation", x="... D")
