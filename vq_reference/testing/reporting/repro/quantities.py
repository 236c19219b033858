"""How each quantity that a law measures is computed from what a torch layer returns, in a script that stands alone.

A law names what it measured; the name is the key. In the expressions `x`, `output`, `indices`, `loss`, `codes`,
`frozen` and `parameters` are the layer's, `after` is the input as the call left it, `decoded` what it made of indices,
`start` what the backward starts from, `expected` what the law expects; `at_codes` gives the gradient at the codes, and
the script defines `gradient` and `jacobian`.
"""

from __future__ import annotations

import re

# λ, and J/λ: in float64, so that the script adds no rounding to what it measures
RATIO = "(codes.double()[indices].norm(dim=1) / x.double().norm(dim=1))[:, None, None]"
TURNING = f"(jacobian(output, x) / {RATIO})"

EXPRESSIONS = {
    "output": "output",
    "input after the call": "after",
    "ℓ": "loss",
    "ℓ on the codes": "loss",
    "negative part of ℓ": "loss.clamp(max=0)",
    "∂ℓ/∂x": "gradient(start, x)",
    "gradient at x": "gradient(start, x)",
    "gradient at the other tokens": "gradient(start, x)",
    "finite gradient": "torch.isfinite(gradient(start, x))",
    "∂ℓ/∂E": "at_codes(start)",
    "gradient at the codebook": "at_codes(start)",
    "∂(sℓ)/∂x": "gradient(start, x)",
    "∂(sℓ)/∂codebook": "at_codes(start)",
    "gradient at the frozen codes": "gradient(start, frozen)",
    "decoded": "decoded",
    "selected code": "codes[indices]",
    "indices": "indices",
    "index − (K − 1)/2": "(indices.double() - (len(codes) - 1) / 2)",
    "J": "jacobian(output, x)",
    "J x": "(jacobian(output, x) @ x.double()[:, :, None])[:, :, 0]",
    "J'J/λ²": f"(m := {TURNING}).mT @ m",
    "Jv/λ": f"expected @ {TURNING}.mT",
    "det(J/λ)": f"torch.linalg.det({TURNING})",
    "finite entries of J": "torch.isfinite(jacobian(output, x))",
    "‖x − q‖² − min ‖x − c‖²": "(d := torch.cdist(x.double(), codes.double(), "
    'compute_mode="donot_use_mm_for_euclid_dist") ** 2)[range(len(x)), indices] - d.min(dim=1).values',
}
# of `lying`, which is what the forward returned as it lies there
FORM = {
    f"{what} of the {part}": read.format(f"lying[{i}]")
    for what, read in (("shape", "tuple({}.shape)"), ("dtype", "str({}.dtype).removeprefix('torch.')"))
    for i, part in enumerate(("output", "indices", "loss"))
}
# "∂ℓ/∂0.weight", "∂ℓ/∂(0.weight)", "∂ℓ/∂weight of layer 0"
OF_PARAMETER = re.compile(r"∂ℓ/∂\(?(?:(?P<name>\d+\.\w+)|(?P<kind>\w+) of layer (?P<layer>\d+))\)?")


def expression(what: str) -> str | None:
    """Return the expression for what a law measured, None where there is none yet.

    >>> expression("output with rotation")
    'output'
    >>> expression("∂ℓ/∂(0.weight) in eval")
    "gradient(start, parameters['0.weight'])"
    """
    what = re.sub(r" with \w+$", "", what).removesuffix(" in eval")
    what = re.sub(r" of a (sum|multiple)$", "", what)
    of_parameter = OF_PARAMETER.fullmatch(what)
    if of_parameter:
        name = of_parameter["name"] or f"{of_parameter['layer']}.{of_parameter['kind']}"
        return f"gradient(start, parameters[{name!r}])"
    return EXPRESSIONS.get(what)
