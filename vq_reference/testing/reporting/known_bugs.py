"""Known bugs by what they look like from outside: which laws they break, and how the numbers are off.

The numbers are ratios, actual to expected, that hold in every entry of the smallest counterexample: an encoder half
that is missing leaves the gradient at the input at 0 times what it should be, β on the wrong half at 1/β times. Where
many inputs end in the same number, as in 0, the bug is told by the input instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vq_reference.arguments import Array
from vq_reference.simvq import SimVQ
from vq_reference.testing.interface.precision import Precision
from vq_reference.testing.interface.subjects import REGULAR_NORMS
from vq_reference.testing.laws.assertions import LawBroken
from vq_reference.testing.laws.verdict import Outcome, Verdict

RATIOS: dict[str, Callable[[Any], float]] = {
    "0": lambda layer: 0.0,
    "1": lambda layer: 1.0,  # beyond the bound, and not by another bound: right but for a little
    "−1": lambda layer: -1.0,
    "2": lambda layer: 2.0,
    "β": lambda layer: layer.beta,
    "1/β": lambda layer: 1 / layer.beta if layer.beta else np.inf,
    "1/(1 + β)": lambda layer: 1 / (1 + layer.beta),
    "1/w": lambda layer: 1 / layer.commitment_weight if layer.commitment_weight else np.inf,
    "D": lambda layer: float(layer.transform[-1].weight.shape[0]),
}
ANY = ""
# what the input shows, where it tells more than the numbers that came out
ZERO, SHORT, DROWNED = "x = 0", "x is short", "q is below the rounding of x"
UPSTREAM = "https://github.com/lucidrains/vector-quantize-pytorch/issues/"


@dataclass(frozen=True)
class KnownBug:
    """One fault that somebody had.

    name: what is wrong. where: who had it. link: where it is discussed. looks: law → the ratio that its counterexample
    fits, or what its input shows, ANY for nothing in particular. holds: laws that hold with this bug, which tell it
    from its neighbours. absent: laws that do not apply, for want of the declaration that it is about.
    """

    name: str
    where: str
    link: str
    looks: Mapping[str, str]
    holds: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{self.name}: as {self.where} {self.link}".strip()


KNOWN_BUGS = (
    KnownBug(
        "encoder share 0",
        "vector-quantize-pytorch 1.20.1–1.20.10 with the rotation, issue 177",
        UPSTREAM + "177",
        {"loss.encoder_half": "0", "loss.formula": "1/(1 + β)", "loss.any_estimator": ANY},
        frozenset({"loss.codebook_half"}),
    ),
    KnownBug(
        "no loss at all",
        "vector-quantize-pytorch 1.20.0 with the rotation, issue 177",
        UPSTREAM + "177",
        {"loss.encoder_half": "0", "loss.codebook_half": "0", "loss.formula": "0", "loss.any_estimator": ANY},
    ),
    KnownBug(
        "β on the other half",
        "taming-transformers with legacy=True, issues 46 and 57",
        "https://github.com/CompVis/taming-transformers/issues/57",
        {"loss.encoder_half": "1/β", "loss.codebook_half": "β"},
        frozenset({"loss.formula"}),
    ),
    KnownBug(
        "the codebook learns nothing",
        "vector-quantize-pytorch before 1.6.14 with a learnable codebook, issues 47 and 53",
        UPSTREAM + "47",
        {"loss.codebook_half": "0"},
        frozenset({"loss.encoder_half", "loss.formula"}),
    ),
    KnownBug(
        "squares summed over the width",
        "a sum over D where the formula has a mean",
        "",
        {"loss.formula": "D", "loss.encoder_half": "D", "loss.codebook_half": "D"},
    ),
    KnownBug(
        "the loss does not depend on commitment_weight",
        "a module that takes no such weight: then declare loss_weights=lambda wanted: (1.0, wanted.beta)",
        "",
        {"loss.weight": ANY, "loss.formula": "1/w", "loss.encoder_half": "1/w", "loss.codebook_half": "1/w"},
    ),
    KnownBug(
        "no estimator",
        "an output that is handed on without one: the encoder gets no gradient from the decoder",
        "",
        {"straight_through.identity": "0"},
    ),
    KnownBug(
        "a reflection in place of the rotation",
        "one Householder reflection: values and norms are right",
        "",
        {"rotation.proper": "−1"},
        frozenset({"rotation.isometry", "rotation.aligned"}),
    ),
    KnownBug(
        "the rotation is turned the wrong way",
        "λR in place of λR' in the backward, or x̂ and q̂ exchanged: all norms are right",
        "",
        {"rotation.transposed": ANY, "rotation.aligned": ANY},
        frozenset({"rotation.isometry", "rotation.proper"}),
    ),
    KnownBug(
        "a small number added to the norms",
        "vector-quantize-pytorch 1.18.0 with the rotation: ‖x‖ + 1e-6 and ‖q‖ + 1e-6 make the output too short "
        "by 1e-6/‖x‖ and more, which is beyond rounding where norms are below 1; training hardly feels it, but the "
        "output is not the code",
        "",
        {"rotation.output": "1", "rotation.aligned": "1", "rotation.isometry": "1"},
        frozenset({"straight_through.output"}),
    ),
    KnownBug(
        "zero input",
        "vector-quantize-pytorch since 1.18.0 with the rotation: x = 0 comes out as 0, not as its code",
        "",
        {"output.extreme": ZERO},
    ),
    KnownBug(
        "a short input",
        "vector-quantize-pytorch since 1.18.0 with the rotation: norms below 1e-6 are taken for 1e-6, and the output "
        "is too short",
        "",
        {"output.extreme": SHORT},
    ),
    KnownBug(
        "the code is lost in a long input",
        "x + sg(q − x), as the papers write it: where x is long, q − x rounds q away. sg(q) + (x − sg(x)) does not",
        "",
        {"output.extreme": DROWNED},
    ),
    KnownBug(
        "nearly opposite directions",
        "vector-quantize-pytorch since 1.18.0: the usual formula of the rotation loses its digits there",
        "",
        {"rotation.opposite": ANY},
        frozenset({"rotation.isometry", "rotation.aligned"}),
    ),
    KnownBug(
        "counts begin at 0",
        "vector-quantize-pytorch before 1.15.3, and MONAI's EMAQuantizer: sums begin with the codes and counts with "
        "nothing, so that the first step divides a code that no token chose by about ε",
        "",
        {"ema.fresh": ANY},
        frozenset({"ema.statistics", "ema.codes"}),
    ),
    KnownBug(
        "sums begin as means",
        "encodec 0.1.1 and speechtokenizer 1.0.1 with k-means, vector-quantize-pytorch issue 66: a sum is a mean times "
        "its count, and a cluster without tokens has neither; else the first step throws codes towards 0",
        UPSTREAM + "66",
        {"initialise.scale": ANY, "initialise.once": ANY},
        frozenset({"ema.codes"}),
    ),
    KnownBug(
        "no dead code is replaced, or it is overwritten in the same step",
        "encodec 0.1.1 and speechtokenizer 1.0.1, which put the token into the codes and sums ÷ counts over it",
        "",
        {"replace.token": ANY, "replace.stays": ANY},
        frozenset({"ema.codes"}),
    ),
    KnownBug(
        "residuals hand their gradients on",
        "EnCodec, issue 25: a layer is given x minus the straight-through output of the last, so that the loss of the "
        "first layer alone trains the encoder. Where that is meant, declare stack_flow='none'",
        "https://github.com/facebookresearch/encodec/issues/25",
        {"stack.flow": "0"},
    ),
    KnownBug(
        "counts are smoothed with an ε that is not declared",
        "a module with Laplace smoothing: then name its ε in the adapter, MovingAverage(..., epsilon='eps')",
        "",
        {"ema.codes": ANY, "ema.unused": ANY},
        frozenset({"ema.statistics", "ema.fixed_point"}),
        absent=frozenset({"ema.shrinkage"}),
    ),
    KnownBug(
        "distances through the expanded square",
        "‖x‖² − 2x·c + ‖c‖², which torch.cdist takes above 25 rows and so every release of vector-quantize-pytorch: an "
        "offset drowns the distances",
        "",
        {"nearest.offset": ANY},
        frozenset({"nearest.choice"}),
    ),
    KnownBug(
        "a last dimension of one is squeezed away",
        "vector-quantize-pytorch 1.18.0–1.23.4 with the rotation, issue 228",
        UPSTREAM + "228",
        {"output.one_dimension": ANY},
    ),
)


def fitting(error: LawBroken, layer: SimVQ | None) -> tuple[str, ...]:
    """Return the ratios r that fit: |actual − r·expected| ≤ (1 + |r|)·bound in every entry.

    The bound is the law's own, once for the actual values and |r| times for the expected ones.
    """
    if not np.any(error.expected):
        return ()
    known = RATIOS if layer is not None else {name: RATIOS[name] for name in ("0", "1", "−1", "2")}
    ratios = {name: ratio(layer) for name, ratio in known.items()}
    return tuple(
        name
        for name, r in ratios.items()
        if np.isfinite(r) and np.all(np.abs(error.actual - r * error.expected) <= (1 + abs(r)) * error.bound)
    )


def features(error: LawBroken, x: Array | None, precision: Precision) -> tuple[str, ...]:
    """Return what the token shows that a law about outputs is worst at; nothing where the law is about something else.

    x: (N, D), the input of the last call.
    """
    if x is None or not error.what.startswith("output") or error.actual.shape != x.shape:
        return ()
    token, bound = x[error.worst[0]], error.bound[error.worst]
    rotated = "rotation" in error.what
    seen = {
        ZERO: rotated and not np.any(token),
        SHORT: rotated and 0 < np.linalg.norm(token) < REGULAR_NORMS[0],
        DROWNED: not rotated and precision.unit_roundoff * np.max(np.abs(token)) > bound,
    }
    return tuple(name for name, there in seen.items() if there)


def nearest_known_bug(law: str, outcomes: Iterable[Outcome]) -> KnownBug | None:
    """Return the known bug that breaks this law and looks most like what broke with it, None where none does.

    outcomes: of all laws that were run on that implementation. Of a bug's laws, those that were run have to look as it
    says; the bug of which most are seen is the nearest.
    """
    ended = {outcome.law: outcome for outcome in outcomes}
    candidates = [bug for bug in KNOWN_BUGS if law in bug.looks and _looks_like(bug, ended)]
    return max(candidates, key=lambda bug: len((set(bug.looks) | bug.holds) & set(ended)), default=None)


def _looks_like(bug: KnownBug, ended: Mapping[str, Outcome]) -> bool:
    broken = (Verdict.BROKEN, Verdict.CRASHED, Verdict.EXPECTED)
    for law, ratio in bug.looks.items():
        outcome = ended.get(law)
        if outcome is None or outcome.verdict is Verdict.NOT_APPLICABLE:
            continue
        fits = outcome.counterexample.fits if outcome.counterexample else ()
        if outcome.verdict not in broken or (ratio != ANY and ratio not in fits):
            return False
    if any(law not in ended or ended[law].verdict is not Verdict.NOT_APPLICABLE for law in bug.absent):
        return False
    return all(ended[law].verdict not in broken for law in bug.holds if law in ended)
