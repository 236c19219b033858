"""A first version of an expectations file, from what broke in a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from vq_reference.testing.laws.verdict import Verdict

if TYPE_CHECKING:
    from vq_reference.testing.reporting.results import Result

# a break is a matter of the package under test; whoever knows that it is not adds a condition
NOT_UNDER_TEST = ("torch", "numpy", "python", "vq-reference")


def draft(results: Iterable[Result]) -> str:
    """Return a TOML file that expects what broke in these runs.

    The reasons are left empty, and the file is refused until they are written. Each entry is for exactly the
    versions that it was seen on; widening them is for whoever knows why it broke.
    """
    lines = ["# Drafted from a run. Say why in each reason, and widen the versions to those that have the fault."]
    for result in results:
        ours = {name: v for name, v in result.versions.items() if name not in NOT_UNDER_TEST}
        when = ", ".join(f'{canonicalize_name(name)} = "=={version}"' for name, version in sorted(ours.items()))
        for outcome in result.outcomes:
            if outcome.verdict in (Verdict.BROKEN, Verdict.CRASHED):
                lines += [
                    "",
                    f'[["{outcome.law}"]]',
                    f"# {outcome.message}",
                    'reason = ""',
                    f'target = "{result.plan.target}"',
                ]
                lines += [f"when = {{ {when} }}"] if when else []
    return "\n".join(lines) + "\n"
