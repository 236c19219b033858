"""Backwards against finite differences of the function that was declared, in which every stopped value is a constant.

The oracle's vector-Jacobian products are formulas, the module's come from autograd; the differences know neither. They
are taken of plain forwards, written down here once more:

    straight-through   ⟨g, x + sg(q − x)⟩      rotation   ⟨g, sg(λR)·x⟩, R by the paper's formula      none   ⟨g, q⟩
    loss               w·( mean(sg(x) − q)² + β·mean(x − sg(q))² )

Central differences, each the mean of two one-sided ones by SciPy. As a function of any one entry the declared function
is of degree two at most, as long as no ReLU switches, so that its central difference has no truncation error, however
long the step. What is left is rounding error, so that the step is as long as the ReLUs allow: 2^−12.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy.optimize import approx_fprime

from vq_reference.arguments import Array
from vq_reference.codebook import Layer
from vq_reference.estimators import ESTIMATORS
from vq_reference.simvq import SimVQ
from vq_reference.testing.adapters.ready.oracle import oracle
from vq_reference.testing.adapters.ready.simvq import reference_module
from vq_reference.testing.adapters.ready.vector_quantize import ACCESS, module_of
from vq_reference.testing.adapters.torch.stateful_layer import LastingTorch
from vq_reference.testing.interface.implementation import Cotangent, Implementation
from vq_reference.testing.interface.stateful import Start, Wanted
from vq_reference.testing.interface.subjects import Case, cotangents
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds
from vq_reference.testing.laws.expected.commitment_loss import arrived, loss_of
from vq_reference.testing.laws.law import Law
from vq_reference.testing.laws.strategies.simvq_cases import transform_cases
from vq_reference.vector_quantize import VectorQuantize

STEP = 2.0**-12
GRID = 2.0**-5
U = np.finfo(np.float64).eps / 2
# sizes all different; a linear transform has no bias, as in the paper
TRANSFORMS = {"linear": (4, 3), "mlp": (2, 5, 3), "deep": (4, 3, 6, 2)}
HALVES = {"both halves": (0.25, 1.0), "codebook half": (0.0, 3.0), "encoder half first": (2.0, 0.75)}
STARTS = {"output": (1.0, 0.0), "loss": (0.0, 1.0), "both": (1.0, -2.0)}


def layer_of(widths: tuple[int, ...]) -> SimVQ:
    """Return a layer of short numbers, so that float64 rounds nothing in its codes, with every ReLU off its kink."""
    for seed in itertools.count():
        generator = np.random.default_rng([seed, *widths])

        def short(*shape: int, generator: np.random.Generator = generator) -> Array:
            return np.round(generator.uniform(-1, 1, shape) / GRID) * GRID

        transform = tuple(
            Layer(short(leaving, entering), short(leaving) if len(widths) > 2 else None)
            for entering, leaving in itertools.pairwise(widths)
        )
        layer = SimVQ(short(5, widths[0]), transform)
        before = pre_activations(layer.frozen_codebook, transform)
        # all that a step can be multiplied by on its way; `Declared` checks that it was enough
        if all(np.min(np.abs(each)) > np.prod(widths) * STEP for each in before):
            return layer
    raise AssertionError("unreachable: the seeds do not end")


def pre_activations(frozen: Array, transform: tuple[Layer, ...]) -> list[Array]:
    """Return what enters each ReLU."""
    entering, before = frozen, []
    for each in transform[:-1]:
        entering = entering @ each.weight.T + (0.0 if each.bias is None else each.bias)
        before.append(entering)
        entering = np.maximum(entering, 0)
    return before


@dataclass(frozen=True)
class Declared:
    """The declared function at one point, the values there being what every stop returns.

    indices: (N,). g: gradient at the output, (N, D). g_loss: at the loss.
    """

    layer: SimVQ
    x: Array
    indices: Array
    g: Array
    g_loss: float

    def __call__(self, x: Array, transform: tuple[Layer, ...], sized: bool = False) -> float:
        """Return ⟨g, out⟩ + g_loss·ℓ, or, `sized`, the same with every number and every difference made positive."""
        size: Callable[[Array], Array] = np.abs if sized else np.asarray
        sign = 1.0 if sized else -1.0
        q, q0, x0 = size(self._codes(transform, sized)), size(self._stopped), size(self.x)
        if self.layer.estimator == "straight_through":
            out = x + (q0 + sign * x0)
        elif self.layer.estimator == "rotation":
            out = np.einsum("nij,nj->ni", size(self._turning()), x)
        else:
            out = q
        halves = np.mean((x0 + sign * q) ** 2) + self.layer.beta * np.mean((x + sign * q0) ** 2)
        loss = self.layer.commitment_weight * halves
        return float(np.sum(size(self.g) * out) + size(np.array(self.g_loss)) * loss)

    def _codes(self, transform: tuple[Layer, ...], sized: bool) -> Array:
        pattern = [before > 0 for before in pre_activations(self.layer.frozen_codebook, self.layer.transform)]
        entering = self.layer.frozen_codebook
        entering = np.abs(entering) if sized else entering
        for i, each in enumerate(transform):
            entering = entering @ each.weight.T + (0.0 if each.bias is None else each.bias)
            if i < len(pattern):
                if not sized and np.any((entering > 0) != pattern[i]):
                    raise AssertionError(f"a ReLU after layer {i} switches within the step: take other numbers")
                entering = entering * pattern[i]
        return entering[self.indices]

    @property
    def _stopped(self) -> Array:
        return self._codes(self.layer.transform, sized=False)

    def _turning(self) -> Array:
        """λR, (N, D, D), by R = I − 2ww' + 2q̂x̂' (arXiv 2410.06424, §4.2)."""
        x_norm, q_norm = (np.linalg.norm(v, axis=1, keepdims=True) for v in (self.x, self._stopped))
        x_hat, q_hat = self.x / x_norm, self._stopped / q_norm
        w = (x_hat + q_hat) / np.linalg.norm(x_hat + q_hat, axis=1, keepdims=True)
        outer = [np.einsum("ni,nj->nij", a, b) for a, b in ((w, w), (q_hat, x_hat))]
        turning = np.eye(self.x.shape[1]) - 2 * outer[0] + 2 * outer[1]
        return np.asarray((q_norm / x_norm)[:, :, None] * turning)


def central(function: Callable[[Array], float], at: Array) -> Array:
    """Return the central difference at every entry. `at` and its steps are short numbers: no step is rounded."""
    if at.dtype != np.float64:
        raise TypeError(f"at has dtype {at.dtype}: finite differences need float64")

    def flat(entries: Array) -> float:
        return function(entries.reshape(at.shape))

    ahead, behind = (approx_fprime(at.ravel(), flat, step) for step in (STEP, -STEP))
    return np.asarray((ahead + behind) / 2).reshape(at.shape)


def replaced(transform: tuple[Layer, ...], i: int, kind: str, value: Array) -> tuple[Layer, ...]:
    return (*transform[:i], replace(transform[i], **{kind: value}), *transform[i + 1 :])


def moves(declared: Declared) -> dict[str, tuple[Array, Callable[..., float]]]:
    """Return, for x and each parameter, where it stands and the declared function of it alone."""
    transform = declared.layer.transform
    found: dict[str, tuple[Array, Callable[..., float]]] = {
        "x": (declared.x, lambda x, sized=False: declared(x, sizes(transform) if sized else transform, sized))
    }
    for i, each in enumerate(transform):
        for kind, value in (("weight", each.weight), ("bias", each.bias)):
            if value is not None:

                def of(moved: Array, sized: bool = False, i: int = i, kind: str = kind) -> float:
                    x, others = (np.abs(declared.x), sizes(transform)) if sized else (declared.x, transform)
                    return declared(x, replaced(others, i, kind, moved), sized)

                found[f"{i}.{kind}"] = (value, of)
    return found


def sizes(transform: tuple[Layer, ...]) -> tuple[Layer, ...]:
    return tuple(Layer(np.abs(each.weight), None if each.bias is None else np.abs(each.bias)) for each in transform)


def rounding(declared: Declared, at: Array, function: Callable[..., float]) -> float:
    """Bound on the rounding error of a central difference, and of the backward that it is compared with.

    A value is off by γ_n times its size, the same function of absolute values (Higham, §3.1), with n the roundings on
    the longest way through it: each width with its bias, the paper's formula and its product with x, the sum over N·D.
    Four values, over twice the step, and the quotients' own few roundings. The backward is off by γ_n times the
    derivative of the size, which has no negative coefficient: no more than the size over a step.
    """
    layer = declared.layer
    widths = sum(each.weight.shape[1] + 1 for each in layer.transform)
    n = widths + declared.x.shape[1] + declared.x.size + 16
    size = function(np.abs(at) + STEP, sized=True)
    bound = bounds.gamma(n, U) * (4 / 2 + 1) * size / STEP
    if layer.estimator == "rotation":
        codes = layer.codebook[declared.indices]
        row = bounds.rotation(declared.x, codes, U)
        # both sides compute λR, and the size of ⟨g, λRx⟩ over a step bounds that of λR'g
        bound += 2 * float(np.max(row)) * size / STEP
    return float(bound)


def encoder_half_by_formula(layer: VectorQuantize, x: Array, g: Array, g_loss: float) -> Array:
    gradients = layer.gradients(x, g, g_loss)
    assert not gradients.codes.any()
    return gradients.x


def encoder_half_by_autograd(layer: VectorQuantize, x: Array, g: Array, g_loss: float) -> Array:
    module = LastingTorch(module_of(Wanted(layer), torch.float64), ACCESS, torch.float64)
    reply = module(x, Start(g, [g_loss]))
    assert reply.reached is not None
    assert not reply.reached.parameters, "codes that are not trained are no parameters"
    return arrived(reply.reached.x, x)


IMPLEMENTATIONS = {"oracle": oracle(), "module": reference_module(dtype="float64")}


ESTIMATED = [(name, e) for name, i in IMPLEMENTATIONS.items() for e in ESTIMATORS if f"estimator:{e}" in i.capabilities]


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("halves", HALVES)
@pytest.mark.parametrize("widths", TRANSFORMS)
@pytest.mark.parametrize(("name", "estimator"), ESTIMATED)
def test_every_gradient_is_the_difference_of_the_declared_function(name, estimator, widths, halves, start):
    implementation = IMPLEMENTATIONS[name]
    beta, weight = HALVES[halves]
    layer = replace(layer_of(TRANSFORMS[widths]), estimator=estimator, beta=beta, commitment_weight=weight)
    x = np.round(np.random.default_rng(1).uniform(-1, 1, (7, layer.codebook.shape[1])) / GRID) * GRID
    g = STARTS[start][0] * cotangents(Case(layer, x))
    answer = implementation.build(layer)(x, [Cotangent(g, STARTS[start][1])])
    declared = Declared(layer, x, answer.indices, g, STARTS[start][1])
    gradients = {"x": answer.gradients[0].x, **answer.gradients[0].parameters}
    assert sorted(gradients) == sorted(moves(declared))
    for what, (at, function) in moves(declared).items():
        actual = arrived(gradients[what], at)
        assert_within(f"∂/∂({what})", actual, central(function, at), rounding(declared, at, function))


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("estimator", ["straight_through", "rotation"])
@pytest.mark.parametrize("gradient", [encoder_half_by_formula, encoder_half_by_autograd])
def test_the_encoder_half_alone_is_the_difference_of_the_declared_function(gradient, estimator, start):
    """Of codes that are not trained. As a function of x, the codebook half of `Declared` is a constant."""
    whole = replace(layer_of((3, 3)), estimator=estimator, beta=2.0, commitment_weight=0.75)
    x = np.round(np.random.default_rng(1).uniform(-1, 1, (7, 3)) / GRID) * GRID
    g, g_loss = STARTS[start][0] * cotangents(Case(whole, x)), STARTS[start][1]
    alone = VectorQuantize(
        whole.codebook[None], estimator=estimator, beta=whole.beta, commitment_weight=whole.commitment_weight
    )
    declared = Declared(whole, x, whole.forward(x).indices, g, g_loss)
    at, function = moves(declared)["x"]
    assert_within("∂/∂x", gradient(alone, x, g, g_loss), central(function, at), rounding(declared, at, function))
    square = np.mean((x - whole.codebook[declared.indices]) ** 2)
    value = alone.commitment_weight * alone.beta * square
    assert_within("ℓ", alone.forward(x).loss, value, bounds.mean_square(x.size, U) * value)


@pytest.mark.parametrize("widths", TRANSFORMS)
def test_the_differences_tell_a_wrong_gradient_from_a_right_one(widths):
    layer = layer_of(TRANSFORMS[widths])
    x = np.round(np.random.default_rng(1).uniform(-1, 1, (7, layer.codebook.shape[1])) / GRID) * GRID
    g = cotangents(Case(layer, x))
    declared = Declared(layer, x, layer.forward(x).indices, g, 1.0)
    gradients = layer.gradients(x, g, 1.0)
    right = {"x": gradients.x, "0.weight": gradients.transform[0].weight}
    for what, gradient in right.items():
        at, function = moves(declared)[what]
        # wrong by a millionth in one entry: what a formula gets wrong is never as little
        assert gradient.any()
        wrong = gradient.copy()
        wrong.flat[np.argmax(np.abs(wrong))] *= 1 + 2.0**-20
        with pytest.raises(AssertionError, match="times the bound"):
            assert_within(what, wrong, central(function, at), rounding(declared, at, function))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_module_gives_the_oracles_answer_and_all_its_gradients(dtype, layers):
    module, u = reference_module(dtype=dtype), reference_module(dtype=dtype).precision.unit_roundoff

    def check(implementation: Implementation, case: Case) -> None:
        g = cotangents(case)
        answer, expected = (built.build(case.reference)(case.x, [Cotangent(g, 1.0)]) for built in (module, oracle()))
        assert_within("indices", answer.indices, expected.indices, 0.0)
        assert_within("output", answer.output, expected.output, 0.0)
        limits, at, wanted = loss_of(module, case, expected.indices), answer.gradients[0], expected.gradients[0]
        assert_within("ℓ", answer.loss, expected.loss, limits.value_bound)
        assert_within("∂/∂E", at.codebook, wanted.codebook, limits.at_codebook_bound)
        for name, gradient in wanted.parameters.items():
            assert_within(f"∂/∂({name})", at.parameters[name], gradient, limits.at_transform_bound[name])
        handed_back = wanted.x - limits.at_x
        total = u * (np.abs(handed_back) + np.abs(limits.at_x)) + limits.at_x_bound
        if case.reference.estimator == "rotation":
            turns = expected.output.any(axis=1)  # a code of zero turns nothing, and hands nothing back
            row = bounds.rotation(case.x[turns], expected.output[turns], u)[:, None]
            total[turns] += row * np.linalg.norm(handed_back[turns], axis=1, keepdims=True)
        assert_within("∂/∂x", at.x, wanted.x, total)

    Law("derivatives.oracle", "must", "", frozenset(), check, {"case": transform_cases(layers)}).run(module)
