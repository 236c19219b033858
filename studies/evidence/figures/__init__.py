"""The figures of the page, each drawn from ``docs/data`` alone."""

from studies.evidence.figures import claims, limits, training, weights

DRAW = {
    "rotation": claims.rotation,
    "loss": claims.loss,
    "cause": training.cause,
    "fixed": training.fixed,
    "after": training.after,
    "weight": weights.weight,
    "long": weights.long,
    "accuracy": limits.accuracy,
    "silence": limits.silence,
    "versions": limits.versions,
}
