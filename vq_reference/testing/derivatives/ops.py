"""What one ATen operation is to autograd: does it carry a gradient through, or does it stop it?

Autograd decides that above the dispatcher. Below it, where the operation is seen, the decision has to be read off:
grad mode is on, an argument carries a gradient, and the operation has a derivative that is not zero by definition.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

# Their derivative is zero by definition (torch's derivatives.yaml), and they are staircases or draws: constants to
# autograd, though what they return "requires grad".
STAIRCASES = frozenset(
    (
        *("ceil", "fix", "floor", "round", "sign", "trunc"),
        *("bernoulli", "normal", "normal_functional", "poisson"),
    )
)

# They carry a derivative that is not that of what they compute: a straight-through estimator inside one operation, or
# an implicit one (Figurnov et al., arXiv 1805.08498), of a draw that was accepted or rejected.
OWN_DERIVATIVE = (
    *("fake_quantize", "moving_avg_obs_fake_quant", "moving_avg_obs_fq"),
    *("_sample_dirichlet", "_standard_gamma"),
)


@dataclass(frozen=True)
class Op:
    """An overload of an ATen operation, as far as following it needs.

    name: as in ``aten.max.dim``. written: positions and keywords of the arguments that it changes in place.
    draws: it reads a random number generator. staircase, own_derivative: see above. detaches: it is ``detach``.
    clamps: it is the identity except outside of some bounds.
    """

    name: str
    written: tuple[int | str, ...]
    draws: bool
    staircase: bool
    own_derivative: bool
    detaches: bool
    clamps: bool


@cache
def describe(func: Any) -> Op:
    """Return what is known of a dispatcher overload; read once per overload."""
    written: list[int | str] = []
    for position, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            written.append(argument.name if argument.kwarg_only else position)
    family = func._schema.name.split("::")[-1]
    base = family.rstrip("_")
    return Op(
        name=str(func),
        written=tuple(written),
        draws=torch.Tag.nondeterministic_seeded in func.tags,
        staircase=base in STAIRCASES,
        own_derivative=any(part in family for part in OWN_DERIVATIVE),
        detaches=base == "detach",
        clamps=base in ("clamp", "clamp_max", "clamp_min", "embedding_renorm"),
    )


def tensors(values: Any) -> Iterator[Tensor]:
    """Yield the tensors among an operation's arguments or results: at most one level of lists deep."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from (item for item in value if isinstance(item, Tensor))


def written_tensors(op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """Return the tensors that a call of `op` changes in place."""
    if not op.written:
        return []
    chosen = (kwargs.get(key) if isinstance(key, str) else args[key] if key < len(args) else None for key in op.written)
    return list(tensors(chosen))


def is_idle(op: Op, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call of `op` would leave what it writes to as it is: a clamp within its bounds.

    Autograd need not see that. ``cosine_similarity`` clamps its norms so, ``Gamma.rsample`` its draws, and an embedding
    with ``max_norm`` its rows.
    """
    if not op.clamps or op.written != (0,):
        return False
    tried = args[0].detach().clone()
    func(tried, *args[1:], **kwargs)
    return torch.equal(tried, args[0])


def padding(op: Op, args: tuple[Any, ...]) -> Tensor | None:
    """Return where the results of an embedding are constants to autograd: the rows of its ``padding_idx``."""
    if op.name != "aten.embedding.default" or len(args) < 3 or args[2] < 0:
        return None
    return torch.eq(args[1], args[2])


def has_its_own_derivative(op: Op, args: tuple[Any, ...]) -> bool:
    """Whether the derivative is not that of what is computed: always, or in an embedding by ``scale_grad_by_freq``."""
    embeds = op.name in ("aten.embedding.default", "aten._embedding_bag.default")
    return op.own_derivative or (embeds and len(args) > 3 and bool(args[3]))


def called_from_autograd() -> bool:
    """Whether the dispatcher passed autograd on the way here.

    A ``detach`` that comes from elsewhere is autograd's own (it saves an output), not the author's.
    """
    return bool(torch._C._dispatch_tls_is_dispatch_key_excluded(torch._C.DispatchKey.ADInplaceOrView))
