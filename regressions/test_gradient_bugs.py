"""The gradient bugs of vector-quantize-pytorch, on the last release that has each and the first that has not.

Replay (`check_gradient`) says the same of both: autograd computes what the release's own stops declare. The bug is that
they declare something else. So each release's gradient is held, too, against SciPy's differences of the function that
ought to be declared, a plain forward written down here, in which every stopped value is a constant. Where no release is
good yet, the reference is the good side.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from vq_reference.arguments import Array
from vq_reference.testing.cases.answers import Measured, measure
from vq_reference.testing.cases.case import PinnedCase, read_all
from vq_reference.testing.cases.expected import sim_vq_of
from vq_reference.testing.cases.gradient_replay import Replayed, replay
from vq_reference.testing.cases.makers import reference
from vq_reference.testing.cases.run import replayed_on_releases
from vq_reference.testing.derivatives.shares import RIGHT, patterns
from vq_reference.testing.derivatives.step import slope
from vq_reference.testing.laws.bounds import bounds
from vq_reference.testing.releases.fetch import ReleaseUnavailable, fetch
from vq_reference.testing.torch_features import SINCE, has

CASES = read_all(Path(__file__).parent / "cases")
LATE = "1.32.0"  # what it imports asks for more than the oldest torch
U, U32 = 2.0**-53, 2.0**-24
STEP = 2.0**-10  # near u^(1/5), where Richardson's h⁴ and rounding meet; and no step is rounded
TERMS = 2**7  # no number below takes more operations
# an estimator is seen through a gradient at the output. Near opposite directions, one along the code: how R turns what
# lies across the plane of x̂ and q̂ hangs on digits that x and q do not have, but R'q̂ = x̂
ZERO = replace(CASES["zero-input"], g_output=np.array([[[0.75, -0.5, 0.25], [0.5, 1.0, -0.25]]]), g_losses=np.zeros(1))
OPPOSITE = replace(CASES["opposite"], g_output=np.array([[[1.0, 0.5, -0.25]]]), g_losses=np.zeros(1))


@dataclass(frozen=True)
class Bug:
    """What is to be seen of one bug.

    casts: the release computes in float32 whatever it is given. quantities: the gradients that are wrong in it.
    starved, fed: the tensors that what the bug is about, an output or the loss, sends no gradient to: bad, good side.
    """

    case: PinnedCase
    quantities: tuple[str, ...]
    casts: bool = False
    of: str = "losses"
    starved: tuple[str, ...] = ()
    fed: tuple[str, ...] = ()


X, CODES, WEIGHT = "gradient at x", "gradient at the codebook", "gradient at 0.weight"
BUGS = {
    bug.case.id: bug
    for bug in (
        Bug(CASES["simvq-no-loss"], (WEIGHT,), of="loss", starved=("inputs[0]", "weight"), fed=("inputs[0]",)),
        Bug(CASES["simvq-encoder-half-missing"], (X,), of="loss", starved=("inputs[0]",)),
        Bug(CASES["learnable-no-gradient"], (CODES,), casts=True, starved=("embed",)),
        Bug(CASES["residual-dead-layers"], (X,), casts=True),
        Bug(CASES["residual-gain"], (X,)),
        Bug(CASES["diversity-sign"], (X, CODES), casts=True),
        Bug(CASES["diveq-undetached"], (X, CODES), of="output", starved=("inputs[0]",)),
        Bug(ZERO, (X,), of="output", starved=("weight",), fed=("weight",)),
        Bug(OPPOSITE, (X,), of="output", starved=("weight",), fed=("weight",)),
    )
}


def terms(case: PinnedCase, x: Array, codes: list[Array], at: tuple[Array, list[Array]]) -> Array:
    """Return the terms that ⟨g, out⟩ + Σ g_l·ℓ_l is the sum of, for the stopped values and indices of the point `at`.

    out: x + sg(q − x); sg(λR)·x; or x + ‖q − x‖·sg(d). ℓ_l: w·(mean(sg(r) − q)² + β·mean(r − sg(q))²), the first half
    where codes are trained, with r = x − Σ sg(q) of the layers before. Diversity: v·Σ p̄ log p̄.
    """
    layer, (x0, codes0) = case.layer, at
    indices = case.expected["indices"].reshape(len(x), -1).T
    q = [each[i] for each, i in zip(codes, indices, strict=True)]
    q0 = [each[i] for each, i in zip(codes0, indices, strict=True)]
    if layer["estimator"] == "rotation":
        out = np.einsum("nij,nj->ni", turning(x0, q0[0]), x)
    elif layer["estimator"] == "directional":
        d0 = (q0[0] - x0) / np.linalg.norm(q0[0] - x0, axis=1, keepdims=True)
        out = x + np.linalg.norm(q[0] - x, axis=1, keepdims=True) * d0
    else:
        out = x + (sum(q0) - x0)
    found = [case.g_output.reshape(x.shape) * out]
    trained = layer["object"] == "SimVQ" or layer["codes_learn_by"] == "gradient"
    r, r0 = x, x0
    for g, each, each0 in zip(case.g_losses, q, q0, strict=True):
        weight = g * layer["commitment_weight"] / x.size
        found += [weight * layer["beta"] * (r - each0) ** 2, weight * trained * (r0 - each) ** 2]
        r, r0 = r - each0, r0 - each0
    if "diversity_weight" in layer:
        distance = np.linalg.norm(x[:, None] - codes[0], axis=2)
        share = np.exp(-layer["diversity_temperature"] * distance)
        mean = np.mean(share / share.sum(axis=1, keepdims=True), axis=0)
        found.append(case.g_losses[0] * layer["diversity_weight"] * mean * np.log(mean))
    return np.concatenate([each.ravel() for each in found])


def turning(x: Array, q: Array) -> Array:
    """λR, (N, D, D), by R = I − 2ww' + 2q̂x̂' (arXiv 2410.06424, §4.2); I for x = 0, which has no direction."""
    found = np.tile(np.eye(x.shape[1]), (len(x), 1, 1))
    for n in np.flatnonzero(x.any(axis=1)):
        x_hat, q_hat = x[n] / np.linalg.norm(x[n]), q[n] / np.linalg.norm(q[n])
        w = (x_hat + q_hat) / np.linalg.norm(x_hat + q_hat)
        found[n] += 2 * np.outer(q_hat, x_hat) - 2 * np.outer(w, w)
        found[n] *= np.linalg.norm(q[n]) / np.linalg.norm(x[n])
    return found


def moved(case: PinnedCase, quantity: str) -> tuple[Array, Callable[[Array], Array]]:
    """Return where the tensor of a quantity stands, and the terms as a function of it alone, flat."""
    x0 = case.x.reshape(-1, case.x.shape[-1])
    sim_vq = sim_vq_of(case.layer) if case.layer["object"] == "SimVQ" else None
    codes0 = list(case.layer["codes"]) if sim_vq is None else [sim_vq.codebook]
    if quantity == X:
        return x0, lambda flat: terms(case, flat.reshape(x0.shape), codes0, (x0, codes0))
    if quantity == CODES:
        (first,) = codes0
        return first, lambda flat: terms(case, x0, [flat.reshape(first.shape)], (x0, codes0))
    assert sim_vq is not None
    weight, frozen = sim_vq.transform[0].weight, sim_vq.frozen_codebook
    return weight, lambda flat: terms(case, x0, [frozen @ flat.reshape(weight.shape).T], (x0, codes0))


def differences(case: PinnedCase, quantity: str) -> tuple[Array, Array]:
    """Return the gradient by Richardson's extrapolation of SciPy's one-sided differences, and its error."""
    at, function = moved(case, quantity)
    origin = function(at.ravel())
    rises = [
        step * np.sum(np.atleast_2d(approx_fprime(at.ravel(), function, step)), axis=0)
        for step in (-STEP, -STEP / 2, STEP / 2, STEP)
    ]
    noise = np.full(at.size, bounds.gamma(TERMS, U) * np.sum(np.abs(origin)))
    found = slope((*rises[:2], np.zeros(at.size), *rises[2:]), STEP, noise)
    return found.value.reshape(at.shape), found.error.reshape(at.shape)


def apart(case: PinnedCase, quantity: str, measured: Measured) -> tuple[Array, Array]:
    """Return how far what was measured is from the differences, and how far rounding may bring it."""
    wanted, error = differences(case, quantity)
    actual = measured[quantity]
    actual = np.zeros_like(wanted) if actual is None else np.asarray(actual).reshape(wanted.shape)
    if case.id in ("zero-input", "opposite"):
        # ‖λR'g‖ = λ‖g‖: off by what robust code reaches, and the matrix above by what its formula does
        x, q = case.x.reshape(wanted.shape), case.expected["output"]
        regular = x.any(axis=1)
        relative = np.full((len(x), 1), bounds.stable_rotation(x.shape[1], U32))
        relative[regular] += bounds.rotation(x[regular], q[regular], U)[:, None]
        bound = relative * np.linalg.norm(wanted, axis=1, keepdims=True)
    else:
        bound = case.bound[quantity].reshape(wanted.shape)
    return np.abs(actual - wanted), error + bound


Found = Mapping[tuple[str, str], tuple[Measured, Replayed] | str]


@pytest.fixture(scope="module")
def found() -> Found:
    """Measure and replay each bug on its releases, one child process for all of them, or on the reference."""
    wanted: dict[str, list[Bug]] = defaultdict(list)
    answers: dict[tuple[str, str], tuple[Measured, Replayed] | str] = {}
    for name, bug in BUGS.items():
        if bug.case.first_good is None:
            answers["reference", name] = (measure(bug.case, reference()), replay(bug.case, reference(), "float64"))
        for version in {bug.case.last_bad, bug.case.first_good} - {None}:
            wanted[str(version)].append(bug)
    jobs = []
    for version, bugs in wanted.items():
        try:
            release = fetch(f"vector-quantize-pytorch=={version}")
        except ReleaseUnavailable as reason:
            answers.update({(version, bug.case.id): f"release not available: {reason}" for bug in bugs})
            continue
        if version != LATE or has("newest upstream"):
            dtypes = {bug.case.id: "float32" if bug.casts else "float64" for bug in bugs}
            jobs.append((release, dtypes, [bug.case for bug in bugs]))
    for (release, _, _), answer in zip(jobs, replayed_on_releases(jobs), strict=True):
        answers.update({(release.version, name): each for name, each in answer.items()})
    return answers


def of(found: Found, name: str, good: bool) -> tuple[Measured, Replayed]:
    case = BUGS[name].case
    version = (case.first_good or "reference") if good else str(case.last_bad)
    if version == LATE and not has("newest upstream"):
        pytest.xfail("since torch {}: {}".format(*SINCE["newest upstream"]))
    answer = found[version, name]
    if isinstance(answer, str) and answer.startswith("release not available"):
        pytest.skip(answer)
    assert not isinstance(answer, str), answer
    return answer


@pytest.mark.parametrize("good", [False, True], ids=["bad", "good"])
@pytest.mark.parametrize("name", BUGS)
def test_autograd_is_what_the_release_declares_with_the_bug_as_without(name: str, good: bool, found: Found) -> None:
    _, replayed = of(found, name, good)
    assert replayed.verdict == "agrees", replayed


@pytest.mark.parametrize("name", BUGS)
def test_what_it_declares_is_wrong_before_and_right_after(name: str, found: Found) -> None:
    bug = BUGS[name]
    for quantity in bug.quantities:
        error, bound = apart(bug.case, quantity, of(found, name, good=True)[0])
        assert np.all(error <= bound), (quantity, error, bound)
        error, bound = apart(bug.case, quantity, of(found, name, good=False)[0])
        assert np.any(error > bound), (quantity, error, bound)


@pytest.mark.parametrize("good", [False, True], ids=["bad", "good"])
@pytest.mark.parametrize("name", BUGS)
def test_replay_names_what_the_gradient_does_not_reach(name: str, good: bool, found: Found) -> None:
    bug = BUGS[name]
    _, replayed = of(found, name, good)
    tensors = replayed.no_gradient[f"output['{bug.of}']"]
    assert {tensor.rpartition(".")[2] for tensor in tensors} == set(bug.fed if good else bug.starved)


def test_the_shares_name_the_missing_half_of_issue_177(found: Found) -> None:
    missing = next(name for name in patterns(0.25) if "issue 177" in name)
    half = "simvq-encoder-half-missing"
    assert of(found, half, good=False)[1].routing == missing
    assert of(found, half, good=True)[1].routing == RIGHT
    assert of(found, "simvq-no-loss", good=True)[1].routing == missing
    assert "no measurable derivative" in of(found, "simvq-no-loss", good=False)[1].routing
