"""What the laws are made of: adapters, bounds, strategies, derivatives, mutants, the runner.

One name stands here, for a test of somebody's own: `assert_conforms`. It is imported when it is asked for, since most
of what is below this package needs neither torch nor hypothesis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vq_reference.testing.conform import assert_conforms

__all__ = ["assert_conforms"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from vq_reference.testing import conform

        return getattr(conform, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
