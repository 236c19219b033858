"""What goes wrong in the rotation trick: most of it keeps every value, and much of it every norm."""

from vq_reference.testing.laws.verdict import Verdict
from vq_reference.testing.mutants.mutant import Mutant

ORACLE = "vq_reference.rotation"
MODULE = "vq_reference.nn.estimators"
BUILT_AND_APPLIED = """    with torch.no_grad():
        scale, first, second = _scaled_rotation(x.to(wide), q.to(wide), limit=torch.finfo(x.dtype).max ** 0.5)
    step = (x - x.detach()).to(wide)
    turned = scale * _reflect(_reflect(step, first), second)
    return _carry(q, turned.to(x.dtype))
"""

MUTANTS = (
    Mutant(
        "rotation-transposed",
        MODULE,
        replace="_reflect(_reflect(step, first), second)",
        by="_reflect(_reflect(step, second), first)",
        why="the backward applies λR in place of λR': all norms are right",
        killed_by="rotation.aligned",
    ),
    Mutant(
        "rotation-transposed-in-the-oracle",
        ORACLE,
        replace="return np.asarray(ratio(x, q) * rotate_back(x, q, g))",
        by="return np.asarray(ratio(x, q) * rotate(x, q, g))",
        why="the backward applies λR in place of λR': all norms are right",
        killed_by="rotation.transposed",
    ),
    Mutant(
        "rotation-reversed",
        ORACLE,
        replace="x_hat, q_hat = _direction(x), _direction(q)",
        by="x_hat, q_hat = _direction(q), _direction(x)",
        why="R turns the code onto the input",
        killed_by="rotation.aligned",
    ),
    Mutant(
        "rotation-without-ratio",
        MODULE,
        replace="turned = scale * _reflect",
        by="turned = _reflect",
        why="λ is left out: the gradient is turned and keeps its length",
        killed_by="rotation.aligned",
    ),
    Mutant(
        "rotation-output-without-ratio",
        MODULE,
        replace=BUILT_AND_APPLIED,
        by=BUILT_AND_APPLIED.replace("(x - x.detach())", "x")
        .replace("scale * ", "")
        .replace("_carry(q, turned.to(x.dtype))", "turned.to(x.dtype)"),
        why="R x without λ is handed on: the code's direction with the input's length",
        killed_by="rotation.output",
    ),
    Mutant(
        "rotation-output-of-zero",
        MODULE,
        replace=BUILT_AND_APPLIED,
        by=BUILT_AND_APPLIED.replace("(x - x.detach())", "x").replace(
            "_carry(q, turned.to(x.dtype))", "turned.to(x.dtype)"
        ),
        why="λRx itself is handed on: for x = 0 that is 0 and not the code, as in every release since 1.18.0",
        killed_by="output.extreme",
    ),
    Mutant(
        "rotation-ratio-inverted",
        ORACLE,
        replace="(x_scaled, x_exponent), (q_scaled, q_exponent) = _scaled(x), _scaled(q)",
        by="(x_scaled, x_exponent), (q_scaled, q_exponent) = _scaled(q), _scaled(x)",
        why="λ = ‖x‖/‖q‖ shrinks what has to grow",
        killed_by="rotation.aligned",
    ),
    Mutant(
        "rotation-ratio-of-the-batch",
        MODULE,
        replace="ratio = (q_unit / x_unit) * (q_stretch / x_stretch)",
        by="ratio = ((q_unit * q_stretch) / (x_unit * x_stretch)).mean(dim=-2, keepdim=True)",
        why="one λ, averaged over the tokens, for all of them",
        killed_by="rotation.isometry",
    ),
    Mutant(
        "rotation-attached",
        MODULE,
        replace=BUILT_AND_APPLIED,
        by=BUILT_AND_APPLIED.replace("with torch.no_grad():", "if True:")
        .replace("(x - x.detach())", "x")
        .replace("_carry(q, turned.to(x.dtype))", "turned.to(x.dtype)"),
        why="R and λ are not detached: λRx is q whatever x is, and its gradient 0",
        killed_by="rotation.isometry",
    ),
    Mutant(
        "reflection",
        MODULE,
        replace="return scale, first, second",
        by="return scale, _unit(x_hat - q_hat), torch.zeros_like(second)",
        why="a Householder reflection takes x to q with one mirror: values and norms are right, det −1",
        killed_by="rotation.proper",
    ),
    Mutant(
        "reflection-in-the-oracle",
        ORACLE,
        replace="b = np.where(obtuse, _across(x_hat + q_hat, q_hat), _direction(x_hat + q_hat))",
        by="a, b = _direction(x_hat - q_hat), np.zeros_like(x_hat)",
        why="a Householder reflection takes x to q with one mirror: values and norms are right, det −1",
        killed_by="rotation.proper",
    ),
    Mutant(
        "rotation-out-of-its-plane",
        MODULE,
        replace="_across(between, q_hat)",
        by="_across(torch.ones_like(between), q_hat)",
        why="the second mirror is orthogonal to q but not in the plane: it turns x onto q, and moves the rest",
        killed_by="rotation.plane",
    ),
    Mutant(
        "rotation-out-of-its-plane-in-the-oracle",
        ORACLE,
        replace="rest = np.where(opposite, axis, between)",
        by="rest = axis",
        why="the second mirror is orthogonal to q but not in the plane: it turns x onto q, and moves the rest",
        killed_by="rotation.plane",
    ),
    Mutant(
        "rotation-bisector-not-normalised",
        ORACLE,
        replace="_direction(x_hat + q_hat))",
        by="(x_hat + q_hat) / 2)",
        why="w is the middle of x̂ and q̂ and shorter than 1: H_w is no reflection",
        killed_by="rotation.isometry",
    ),
    Mutant(
        "rotation-without-doubling",
        MODULE,
        replace="return v - 2 * mirror *",
        by="return v - mirror *",
        why="I − ww' projects where I − 2ww' reflects",
        killed_by="rotation.isometry",
    ),
    Mutant(
        "rotation-by-the-formula-alone",
        MODULE,
        replace="acute = (x_hat * q_hat).sum(dim=-1, keepdim=True) > 0",
        by="acute = (x_hat * q_hat).sum(dim=-1, keepdim=True) > -2",
        why="w = (x̂ + q̂)/‖x̂ + q̂‖ at every angle: near opposite directions its digits are gone",
        killed_by="rotation.opposite",
    ),
    Mutant(
        "rotation-by-the-formula-alone-in-the-oracle",
        ORACLE,
        replace="obtuse = np.sum(x_hat * q_hat, axis=1, keepdims=True) <= 0",
        by="obtuse = np.sum(x_hat * q_hat, axis=1, keepdims=True) <= -2",
        why="w = (x̂ + q̂)/‖x̂ + q̂‖ at every angle: near opposite directions its digits are gone",
        killed_by="rotation.opposite",
    ),
    Mutant(
        "rotation-ratio-of-zero",
        MODULE,
        replace="scale = torch.where(x_is_zero, 1, ratio.clamp(max=limit))",
        by="scale = ratio",
        why="λ of x = 0 is a division by zero, and the gradient infinite",
        killed_by="rotation.finite",
    ),
    Mutant(
        "rotation-squeezes-one-dimension",
        MODULE,
        replace="return _carry(q, turned.to(x.dtype))",
        by="return _carry(q, turned.to(x.dtype).squeeze(-1))",
        why="tokens of one entry lose their axis and are spread over the batch, as in 1.18.0 to 1.23.4 (issue 228)",
        killed_by="output.one_dimension",
        verdict=Verdict.CRASHED,
    ),
)
