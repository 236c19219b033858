"""What goes wrong in directional reparameterization."""

from vq_reference.testing.mutants.mutant import Mutant

ESTIMATORS = "vq_reference.nn.estimators"

MUTANTS = (
    Mutant(
        "direction-attached",
        ESTIMATORS,
        replace="along = direction * (direction * (shift - step)).sum(dim=-1, keepdim=True)",
        by="along = shift - step",
        why="the direction is differentiated with the distance: x and −x cancel, and the input gets nothing",
        killed_by="directional.gradient",
    ),
    Mutant(
        "distance-detached-from-the-input",
        ESTIMATORS,
        replace="(direction * (shift - step))",
        by="(direction * shift)",
        why="the distance depends on the code alone: the input gets the whole gradient, and so does the way",
        killed_by="directional.gradient",
    ),
)
