"""Who is measured: a released SimVQ in its folder, or the reference, right or with one line changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from vq_reference.testing.experiments.issue_177.static import BOTH, CODEBOOK_ONLY, NEITHER, Halves
from vq_reference.testing.mutants import Mutant
from vq_reference.testing.releases.fetch import Release, fetch

PACKAGE = "vector-quantize-pytorch"

#: The releases on both sides of each change, and the halves of the loss that each has with the rotation.
RELEASES = {
    "1.20.0": NEITHER,
    "1.20.1": CODEBOOK_ONLY,
    "1.20.10": CODEBOOK_ONLY,
    "1.20.11": BOTH,
}


#: The faults of the releases, on the reference: one line each.
MUTANTS = {
    mutant.name: mutant
    for mutant in (
        Mutant(
            "encoder-half-missing-with-rotation",
            "vq_reference.nn.sim_vq",
            replace="encoder_half = _mean_square(tokens, q.detach())",
            by="encoder_half = _mean_square(tokens, q.detach()) * (not self.rotation_trick)",
            why="1.20.1 to 1.20.10: with the rotation nothing holds the encoder to its codes",
            killed_by="issue-177",
        ),
        Mutant(
            "no-loss-with-rotation",
            "vq_reference.nn.sim_vq",
            replace="loss = self.commitment_weight * (",
            by="loss = (not self.rotation_trick) * self.commitment_weight * (",
            why="1.20.0: with the rotation the loss is zero and trains neither side",
            killed_by="issue-177",
        ),
    )
}


@dataclass(frozen=True)
class Measured:
    """One implementation.

    name: as the tables call it. halves: the halves of the loss that it is known to have with the rotation.
    trained: whether the training run includes it. release: its wheel, or None for the reference.
    mutant: name of the changed line, one of `MUTANTS`, or None for the right code.
    """

    name: str
    halves: Halves
    trained: bool
    release: Release | None = None
    mutant: str | None = None


def released() -> Iterator[Measured]:
    """Fetch and yield the releases of `RELEASES`, then the newest. Raises as `releases.fetch.fetch`."""
    for version, halves in RELEASES.items():
        # 1.20.0 and 1.20.1 take no transform and no weight, so the training run of the report does not exist there.
        yield Measured(version, halves, version in ("1.20.10", "1.20.11"), fetch(f"{PACKAGE}=={version}"))
    newest = fetch(PACKAGE)
    yield Measured(f"{newest.version} (newest)", BOTH, True, newest)


def referenced() -> Iterator[Measured]:
    """Yield the mutants that have the faults of the releases, then the right reference. Needs no network."""
    yield Measured("mutant 1.20.0", NEITHER, False, mutant="no-loss-with-rotation")
    yield Measured("mutant 1.20.10", CODEBOOK_ONLY, True, mutant="encoder-half-missing-with-rotation")
    yield Measured("reference", BOTH, True)


@contextmanager
def implementation(subject: Measured) -> Iterator[Any]:
    """Give the subject's SimVQ class, in a process of its own; the changed line stays for as long as the context."""
    if subject.release:
        yield subject.release.load("vector_quantize_pytorch").SimVQ
        return
    from vq_reference.nn import SimVQ

    if subject.mutant is None:
        yield SimVQ
    else:
        with MUTANTS[subject.mutant].applied():
            yield SimVQ
