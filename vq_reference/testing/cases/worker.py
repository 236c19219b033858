"""Cases on a release, in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vq_reference.testing.cases.answers import measure
from vq_reference.testing.cases.case import PinnedCase
from vq_reference.testing.cases.gradient_replay import replay
from vq_reference.testing.cases.makers import lucidrains
from vq_reference.testing.releases.fetch import Release


def on_release(release: Release, cases: Sequence[PinnedCase], dtypes: Mapping[str, str] | None) -> dict[str, Any]:
    """Return what the release gives for each case, by its id: what was measured, or, where it raises, what it says.

    dtypes: case id → what it is replayed in; then each is (what was measured, what replay says).
    """
    try:
        release.load("vector_quantize_pytorch")
    except Exception as error:
        return dict.fromkeys((case.id for case in cases), _said(error))
    found: dict[str, Any] = {}
    for case in cases:
        try:
            found[case.id] = measure(case, lucidrains())
            if dtypes is not None:
                found[case.id] = found[case.id], replay(case, lucidrains(), dtypes[case.id])
        except Exception as error:
            found[case.id] = _said(error)
    return found


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".split("\n")[0]
