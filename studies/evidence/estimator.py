"""Claims (a) to (c) on one input: is the rotation random, does it change the value, does it change the loss?"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

import vq_reference.rotation as oracle
from vq_reference.testing.experiments.issue_177.measure_one import measure
from vq_reference.testing.experiments.issue_177.quantizer import build, freeze
from vq_reference.testing.experiments.issue_177.static import BETA, CODEBOOK_ONLY, Row, case, expected

REPEATS = 5


def rotation(SimVQ: Any) -> dict[str, Any]:
    """Return what the rotation of a release does on the fixed input of `experiments.issue_177.static`.

    draws: whether a forward moved torch's random state. spread: largest difference of any entry of output or Jacobian
    between `REPEATS` calls with other random states. error: largest |J − λR|/λ. determinant: that furthest from +1 of
    J/λ. value: largest ‖output − q‖/‖q‖, by estimator. same_indices: whether both estimators choose the same codes.
    input_kept: whether x is what it was. reaches_codes: the largest gradient that the output sends to the transform.
    matrix: R of the first token in the basis x̂, what of q̂ is orthogonal to it, and the rest of space.
    """
    given = case()
    D = given.x.shape[-1]
    modules = {name: _module(SimVQ, name) for name in ("rotation", "straight-through")}
    x = torch.tensor(given.x, dtype=torch.float32)
    with torch.no_grad():
        codes = cast(Tensor, modules["rotation"].transform(modules["rotation"].frozen))
    calls = []
    for seed in range(REPEATS):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        output, indices, jacobian = _jacobian(modules["rotation"].quantizer, x)
        calls.append((output, jacobian))
        drew = not torch.equal(before, torch.get_rng_state())
    q = codes[indices]
    flat_x, flat_q = (np.asarray(t.reshape(-1, D), dtype=np.float64) for t in (x, q))
    R, scale = oracle.matrix(flat_x, flat_q), oracle.ratio(flat_x, flat_q)
    turned = np.asarray(calls[0][1], dtype=np.float64) / scale[..., None]
    plain, plain_indices, _ = modules["straight-through"].quantizer(x)
    determinants = np.linalg.det(turned)
    return {
        "draws": drew,
        "spread": max((a - b).abs().max().item() for call in calls for a, b in zip(call, calls[0], strict=True)),
        "error": float(np.abs(turned - R).max()),
        "determinant": float(determinants[np.abs(determinants - 1).argmax()]),
        "value": {"rotation": _relative(calls[0][0], q), "straight-through": _relative(plain.detach(), q)},
        "same_indices": torch.equal(indices, plain_indices),
        "input_kept": torch.equal(x, torch.tensor(given.x, dtype=torch.float32)),
        "reaches_codes": _reaches_codes(modules["rotation"], x),
        "matrix": (_basis(flat_x[0], flat_q[0]).T @ turned[0] @ _basis(flat_x[0], flat_q[0])).tolist(),
        "angle": float(
            np.degrees(np.arccos(flat_x[0] @ flat_q[0] / np.linalg.norm(flat_x[0]) / np.linalg.norm(flat_q[0])))
        ),
    }


def loss(SimVQ: Any, estimator: str) -> dict[str, Any]:
    """Return loss, its ratio to the mean square, both gradient norms and the halves that these prove."""
    row = Row("", estimator, mse=expected(case(), CODEBOOK_ONLY).loss, **measure(SimVQ, estimator))
    return {
        "loss": row.loss,
        "mse": row.mse,
        "ratio": row.ratio,
        "grad_x": row.norm("grad_x") or 0.0,
        "grad_transform": row.norm("grad_transform") or 0.0,
        "halves": str(row.halves() or "unknown"),
    }


class _Module(NamedTuple):
    """A quantizer with the codes and the transform of the fixed case."""

    quantizer: nn.Module
    transform: nn.Module
    frozen: Tensor


def _module(SimVQ: Any, estimator: str) -> _Module:
    given = case()
    C, W = (torch.tensor(a, dtype=torch.float32) for a in (given.C, given.W))
    transform = nn.Linear(W.shape[1], W.shape[0], bias=False)
    with torch.no_grad():
        transform.weight.copy_(W)
    quantizer = build(SimVQ, len(C), transform, dim=W.shape[0], estimator=estimator, beta=BETA)
    freeze(quantizer, C)
    return _Module(quantizer, transform, C)


def _jacobian(quantizer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return output, indices and the Jacobian of each token, (tokens, D, D): tokens do not depend on one another."""
    leaf = x.clone().requires_grad_()
    output, indices, _ = quantizer(leaf)
    rows = [torch.autograd.grad(output[..., d].sum(), leaf, retain_graph=True)[0] for d in range(x.shape[-1])]
    return output.detach(), indices, torch.stack(rows, dim=-2).reshape(-1, x.shape[-1], x.shape[-1])


def _reaches_codes(module: _Module, x: Tensor) -> float:
    """Return the largest entry of the gradient of the output's sum at the transform; x is a leaf that asks for one."""
    output, _, _ = module.quantizer(x.clone().requires_grad_())
    (gradient,) = torch.autograd.grad(output.sum(), list(module.transform.parameters()), allow_unused=True)
    return 0.0 if gradient is None else float(gradient.abs().max())


def _relative(output: Tensor, q: Tensor) -> float:
    return float(((output - q).norm(dim=-1) / q.norm(dim=-1)).max())


def _basis(x: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis, one vector a column: x̂, then what of q̂ is orthogonal to it, then the rest."""
    rest = np.random.default_rng(0).standard_normal((len(x), len(x) - 2))
    basis, triangle = np.linalg.qr(np.column_stack([x, q, rest]))
    return np.asarray(basis * np.sign(np.diag(triangle)))
