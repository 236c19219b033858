"""What goes wrong on the way of a gradient from the output to the input."""

from vq_reference.testing.mutants.mutant import Mutant

ORACLE = "vq_reference.estimators"
MODULE = "vq_reference.nn.estimators"
LAYER = "vq_reference.nn.sim_vq"

MUTANTS = (
    Mutant(
        "straight-through-without-stop",
        MODULE,
        replace="return _carry(q, x - x.detach())",
        by="return x + (q - x)",
        why="x + (q − x) without its stop-gradient passes nothing: the encoder is not trained",
        killed_by="straight_through.identity",
    ),
    Mutant(
        "straight-through-passes-the-input",
        MODULE,
        replace="return _carry(q, x - x.detach())",
        by="return x",
        why="the gradient is right because nothing was quantized",
        killed_by="straight_through.output",
    ),
    Mutant(
        "straight-through-plain-sum",
        MODULE,
        replace="return _carry(q, x - x.detach())",
        by="return x + (q - x).detach()",
        why="right in exact arithmetic: where x is much longer than q, the sum keeps few digits of q",
        killed_by="output.extreme",
    ),
    Mutant(
        "straight-through-half",
        ORACLE,
        replace='if estimator == "straight_through":\n        return g, nothing',
        by='if estimator == "straight_through":\n        return g / 2, nothing',
        why="half of the gradient is handed back",
        killed_by="straight_through.identity",
    ),
    Mutant(
        "straight-through-in-place-of-the-rotation",
        ORACLE,
        replace="return rotation.vjp(x, q, g), nothing",
        by="return g, nothing",
        why="the rotation was asked for, and g is handed back as it came",
        killed_by="rotation.aligned",
    ),
    Mutant(
        "no-estimator",
        LAYER,
        replace="output = estimator(x.to(dtype), q.to(dtype).reshape(x.shape))",
        by="output = q.to(dtype).reshape(x.shape)",
        why="the output is the bare code: the encoder gets no gradient, and the codebook one that is not its own",
        killed_by="straight_through.identity",
    ),
    Mutant(
        "rotation-trick-is-ignored",
        LAYER,
        replace="estimator = rotate if self.rotation_trick else straight_through",
        by="estimator = straight_through",
        why="a flag that is stored and never read: straight-through where the rotation was asked for",
        killed_by="rotation.aligned",
    ),
    Mutant(
        "output-mixed-over-tokens",
        MODULE,
        replace="    zero = f.detach() - f\n",
        by="    zero = (f.detach() - f).flip(-2)\n",
        why="the value is right, and each token gets the gradient of another",
        killed_by="gradient.tokens",
    ),
    Mutant(
        "gradient-clipped",
        ORACLE,
        replace='if estimator == "straight_through":\n        return g, nothing',
        by='if estimator == "straight_through":\n        return np.clip(g, -1, 1), nothing',
        why="entries beyond 1 are cut: unit vectors, and so the Jacobian, do not show it",
        killed_by="gradient.vjp",
    ),
    Mutant(
        "output-trains-the-codes",
        LAYER,
        replace="output = estimator(x.to(dtype), q.to(dtype).reshape(x.shape))",
        by="output = estimator(x.to(dtype), q.to(dtype).reshape(x.shape)) + (q - q.detach()).reshape(x.shape)",
        why="the decoder's gradient reaches the codes besides the encoder",
        killed_by="gradient.codebook",
    ),
    Mutant(
        "output-or-loss",
        "vq_reference.simvq",
        replace="np.asarray(output_at_x + loss_at_x)",
        by="np.where(loss_at_x != 0, loss_at_x, output_at_x)",
        why="the gradient of the loss replaces that of the output where both arrive",
        killed_by="gradient.sum",
    ),
    Mutant(
        "direction-of-zero",
        MODULE,
        replace="v / unit / stretch.clamp(min=tiny)",
        by="v / unit / stretch",
        why="a vector of length zero is divided by it: NaN",
        killed_by="gradient.finite",
    ),
)
