"""The script of an estimator alone, a function (x, q) → out of torch or of JAX; the choice before it is a right one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from vq_reference.arguments import Array
from vq_reference.simvq import SimVQ
from vq_reference.testing.adapters.codegen import source
from vq_reference.testing.adapters.codegen.module_script import Script, back, permuted
from vq_reference.testing.adapters.codegen.simvq_script import require_plain
from vq_reference.testing.adapters.torch.layout import CHANNEL, Layout
from vq_reference.testing.interface.implementation import Call
from vq_reference.testing.interface.torch_source import Written


def estimator_script(f: Callable[[Tensor, Tensor], Tensor], layout: Layout, dtype: str) -> Script:
    """Return what writes the script of a torch function of tokens and codes, which lie as `layout` says."""

    def script(reference: SimVQ, x: Array, how: Call) -> Written:
        require_plain(how)
        lines, name = source.function(f)
        sizes = layout.spelled(len(layout.natural(len(x))))
        shape = dict(zip((*sizes.leading, CHANNEL), (*layout.natural(len(x)), x.shape[1]), strict=True))
        order = list(shape)
        x_there, q_there = (permuted(what, order, sizes, shape) for what in ("x", "q"))
        return Written(
            source.lines_of(lines, [_codes(reference)]),
            f"{_choice(dtype)}\nreturned = {name}({x_there}, {q_there})",
            f"output, loss = {back('returned', order, sizes, shape)}, torch.zeros(())",
        )

    return script


FROM_JAX = '''class FromJax(torch.autograd.Function):
    """A function of JAX as one of torch: its output, and its vector-Jacobian product."""

    @staticmethod
    def forward(ctx, x, q):
        entering, codes = (jax.numpy.asarray(each.detach().numpy()) for each in (x, q))
        output, ctx.back = jax.vjp(lambda tokens: estimator(tokens, codes), entering)
        return torch.from_numpy(np.array(output))

    @staticmethod
    def backward(ctx, g):
        (arrived,) = ctx.back(jax.numpy.asarray(g.numpy()))
        return torch.from_numpy(np.array(arrived)), None

'''


def jax_estimator_script(f: Callable[[Any, Any], Any], dtype: str) -> Script:
    """Return the same of a function of JAX: only what is called is JAX's, all else is torch's."""

    def script(reference: SimVQ, x: Array, how: Call) -> Written:
        require_plain(how)
        lines, name = source.function(f)
        wide = ['jax.config.update("jax_enable_x64", True)'] if dtype == "float64" else []
        return Written(
            source.lines_of(["import jax", *wide, *lines, f"estimator = {name}", FROM_JAX, _codes(reference)]),
            f"{_choice(dtype)}\nreturned = FromJax.apply(x, q)",
            "output, loss = returned, torch.zeros(())",
        )

    return script


def _codes(reference: SimVQ) -> str:
    return f"exact = {source.exactly(reference.codebook)}"


def _choice(dtype: str) -> str:
    """Return the lines of a right choice, made in float64: codes, indices and q."""
    apart = 'torch.cdist(x.detach().double(), exact, compute_mode="donot_use_mm_for_euclid_dist")'
    return f"indices, codes = {apart}.argmin(dim=1), exact.to(torch.{dtype})\nq = codes[indices]"
