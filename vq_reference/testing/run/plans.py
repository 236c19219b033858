"""From a command line to plans: which target is run in which environment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vq_reference.testing.reporting.results import Plan
from vq_reference.testing.run.targets import TargetUnavailable, expand, ready, require_file

if TYPE_CHECKING:
    from vq_reference.testing.releases.fetch import Release


def planned(targets: Sequence[str], requirements: Sequence[str], template: Plan) -> dict[str, Plan]:
    """Return a plan for each target and each release that it is run on, by its title in the report.

    A prefix such as "lucidrains" names all of that family. A ready adapter is run on the releases of the package that
    it is about; an object of one's own on every one, since only its author knows what it imports. Raises
    TargetUnavailable for a name that is not known, a release that cannot be fetched, and a release that no target is
    about.
    """
    named = [each for target in targets for each in expand(target)]
    distributions = {target: None if _is_path(target) else ready(target).distribution for target in named}
    fetched = [_release(requirement) for requirement in requirements]
    unused = {release.distribution for release in fetched} - set(distributions.values())
    if unused and not any(_is_path(target) for target in named):
        raise TargetUnavailable(f"--with {', '.join(sorted(unused))}: no target of this run is about that package")
    plans = {}
    for target, distribution in distributions.items():
        plan = replace(template, target=target)
        if _is_path(target):
            if target.rpartition(":")[0].endswith(".py"):
                require_file(Path(target.rpartition(":")[0]), target)
            plan = replace(plan, target=_absolute(target), called=target, folder=os.getcwd())
        of_target = [r for r in fetched if _is_path(target) or r.distribution == distribution]
        for release in of_target:
            first = os.pathsep.join([str(release.path), *filter(None, [plan.environment.get("PYTHONPATH")])])
            plans[f"{target} {release.version}"] = replace(
                plan,
                environment={**plan.environment, "PYTHONPATH": first},
                release=(release.distribution, release.version),
            )
        if not of_target:
            plans[target] = plan
    return plans


def _is_path(target: str) -> bool:
    """Whether the target is an object of the caller's own, `module:object` or `file.py:object`."""
    return ":" in target


def _absolute(target: str) -> str:
    place, _, name = target.rpartition(":")
    return f"{Path(place).absolute()}:{name}" if place.endswith(".py") else target


def _release(requirement: str) -> Release:
    try:
        from vq_reference.testing.releases.fetch import ReleaseRefused, ReleaseUnavailable, fetch
    except ImportError as error:
        raise TargetUnavailable(f"--with needs {error.name}: pip install 'vq-reference[releases]'") from error
    try:
        return fetch(requirement)
    except (ReleaseUnavailable, ReleaseRefused, ValueError) as error:
        raise TargetUnavailable(f"--with {requirement}: {error}") from error
