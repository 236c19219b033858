"""From the name on a command line to an implementation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from vq_reference.testing.adapters import sim_vq, vector_quantize
from vq_reference.testing.adapters.implementation import Implementation
from vq_reference.testing.adapters.oracle import oracle


@dataclass(frozen=True)
class Ready:
    """An adapter that comes with this package: how to make it, and the distribution that it is about, if not ours."""

    make: Callable[[], Implementation]
    distribution: str | None = None


READY: dict[str, Ready] = {
    "reference.oracle": Ready(oracle),
    "reference.SimVQ": Ready(sim_vq.reference_module),
    "reference.SimVQ[channel_first]": Ready(partial(sim_vq.reference_module, channel_first=True)),
    "reference.VectorQuantize": Ready(vector_quantize.vector_quantize),
    "reference.ResidualQuantizer": Ready(vector_quantize.residual_quantizer),
    "reference.VectorQuantize[compiled]": Ready(partial(vector_quantize.vector_quantize, compiles=True)),
    "lucidrains.SimVQ": Ready(sim_vq.lucidrains, "vector-quantize-pytorch"),
    "lucidrains.SimVQ[channel_first]": Ready(partial(sim_vq.lucidrains, channel_first=True), "vector-quantize-pytorch"),
}


class TargetUnavailable(Exception):
    """A target that is not known, or whose package cannot be imported. The message says what to do about it."""


def expand(target: str) -> list[str]:
    """Return the targets that a name stands for: itself, or for a prefix such as "lucidrains" all of that family.

    >>> expand("reference")  # doctest: +NORMALIZE_WHITESPACE
    ['reference.oracle', 'reference.SimVQ', 'reference.SimVQ[channel_first]', 'reference.VectorQuantize',
     'reference.ResidualQuantizer', 'reference.VectorQuantize[compiled]']
    """
    family = [name for name in READY if name.startswith(f"{target}.")]
    return [target] if target in READY or not family else family


def ready(target: str) -> Ready:
    """Return the adapter of that name. Raises TargetUnavailable that lists the names there are.

    >>> ready("reference.oracle").make().precision.name
    'float64'
    """
    if target not in READY:
        raise TargetUnavailable(f"target {target!r} is not known: expected one of {', '.join(READY)}")
    return READY[target]


def implementation_of(target: str) -> Implementation:
    """Return the implementation that a target names. Raises TargetUnavailable."""
    adapter = ready(target)
    try:
        return adapter.make()
    except Exception as error:
        remedy = f": install {adapter.distribution}, or name a release with --with" if adapter.distribution else ""
        raise TargetUnavailable(
            f"target {target} cannot be imported ({type(error).__name__}: {error}){remedy}"
        ) from error
