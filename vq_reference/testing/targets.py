"""From the name on a command line to an implementation."""

from __future__ import annotations

from collections.abc import Callable

from vq_reference.testing.adapters import sim_vq
from vq_reference.testing.adapters.implementation import Implementation
from vq_reference.testing.adapters.oracle import oracle

READY: dict[str, Callable[[], Implementation]] = {
    "reference.oracle": oracle,
    "reference.SimVQ": sim_vq.reference_module,
    "lucidrains.SimVQ": sim_vq.lucidrains,
}


class TargetUnavailable(Exception):
    """A target that is not known, or whose package cannot be imported. The message says what to do about it."""


def implementation_of(target: str) -> Implementation:
    """Return the implementation behind a name of READY. Raises TargetUnavailable.

    >>> implementation_of("reference.oracle").precision.name
    'float64'
    """
    if target not in READY:
        raise TargetUnavailable(f"target {target!r} is not known: expected one of {', '.join(READY)}")
    try:
        return READY[target]()
    except Exception as error:
        raise TargetUnavailable(
            f"target {target} cannot be imported: {type(error).__name__}: {error}. "
            "Install its package, or name a release with --with PACKAGE==VERSION"
        ) from error
