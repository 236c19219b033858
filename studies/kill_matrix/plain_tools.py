"""What a developer would use today, on the same mutants: smoke tests, `gradcheck`, the value of the loss.

Each tool is first tried on the right code that the mutant changes, layer by layer: both estimators of SimVQ, or a
stack, or codes that learn by a gradient and codes that follow by an average. It kills a mutant where it objects to a
layer that it accepts without the fault. Where it accepts none of the right layers, it "rejects right code".

- smoke test: shapes of output and indices, a finite loss and finite gradients, and decoding gives the output, on random
  tokens, as in upstream's own tests.
- gradcheck: `torch.autograd.gradcheck` of the output, and of the loss, with respect to the tokens.
- loss value: the loss of two batches beside that of right code, to the bound of a mean square.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from vq_reference import nearest
from vq_reference.arguments import Array
from vq_reference.codebook import Layer as Affine
from vq_reference.residual import ResidualStack
from vq_reference.simvq import SimVQ
from vq_reference.testing.adapters.ready.oracle import oracle
from vq_reference.testing.adapters.ready.simvq import reference_module
from vq_reference.testing.adapters.ready.vector_quantize import residual_quantizer, vector_quantize
from vq_reference.testing.interface.implementation import Cotangent
from vq_reference.testing.interface.stateful import Averaging, Start, Wanted, WantedStack
from vq_reference.testing.laws.bounds import bounds
from vq_reference.testing.mutants import AUXILIARY_MUTANTS, LASTING_MUTANTS, MUTANTS
from vq_reference.vector_quantize import VectorQuantize

KILLS, PASSES, REJECTS_RIGHT = "kills", "passes", "rejects right code"
TOKENS, DIM, CODES = 12, 4, 8
UNIT_ROUNDOFF = float(np.finfo(np.float32).eps) / 2


class Reply(NamedTuple):
    """What a call gives, of layers of every kind."""

    output: Array
    indices: Array
    loss: float
    at_x: Array
    decoded: Array


Subject = Callable[[Array, Array, float], Reply]


def plain(name: str) -> dict[str, str]:
    """Return tool → what it says of that mutant."""
    mutant = MUTANTS[name]
    tools: dict[str, Callable[[Subject], bool]] = {
        "smoke test": _smoke,
        "gradcheck of the output": lambda subject: _gradcheck(subject, of_loss=False),
        "gradcheck of the loss": lambda subject: _gradcheck(subject, of_loss=True),
    }
    found = {}
    for tool, objects in tools.items():
        before = [_objects(objects, subject) for subject in _subjects(name)]
        with mutant.applied():
            after = [_objects(objects, subject) for subject in _subjects(name)]
        kills = any(wrong and not right for right, wrong in zip(before, after, strict=True))
        found[tool] = KILLS if kills else REJECTS_RIGHT if all(before) else PASSES
    right = _losses(name)
    with mutant.applied():
        wrong = _losses(name)
    found["loss value"] = PASSES if right is not None and wrong is not None and _same(right, wrong) else KILLS
    return found


def _objects(objects: Callable[[Subject], bool], subject: Subject) -> bool:
    try:
        return objects(subject)
    except Exception:
        return True


def _smoke(subject: Subject) -> bool:
    for x in _batches():
        reply = subject(x, np.ones_like(x), 1.0)
        numbers = (reply.output, reply.loss, reply.at_x, reply.decoded)
        if reply.output.shape != x.shape or len(reply.indices) != len(x):
            return True
        if not all(np.all(np.isfinite(number)) for number in numbers):
            return True
        if not np.allclose(reply.decoded, reply.output, atol=1e-6):  # as upstream's tests do
            return True
    return False


def _gradcheck(subject: Subject, of_loss: bool) -> bool:
    # a few tokens: where it objects, it goes through every entry to say which
    x = torch.tensor(_batches()[0][:2], dtype=torch.float64, requires_grad=True)
    # float32 inside: a step and tolerances that fit it, in place of those for float64
    settings = {"eps": 1e-3, "atol": 1e-2, "rtol": 1e-2, "raise_exception": False, "fast_mode": True}
    agrees: bool = torch.autograd.gradcheck(_through(subject, of_loss), x, **settings)  # type: ignore[arg-type]
    return not agrees


def _through(subject: Subject, of_loss: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the layer as a function that autograd can differentiate, by the layer's own backward."""

    class Through(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            tokens = x.detach().numpy()
            with torch.enable_grad():  # the layer runs its own backward, also here where torch has turned it off
                reply = subject(tokens, np.zeros_like(tokens), 0.0)
            return torch.as_tensor(reply.loss if of_loss else reply.output, dtype=torch.float64)

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
            tokens, start = ctx.saved_tensors[0].detach().numpy(), grads[0].detach().numpy()
            at = (np.zeros_like(tokens), float(start)) if of_loss else (np.array(start), 0.0)
            with torch.enable_grad():
                return torch.as_tensor(subject(tokens, *at).at_x, dtype=torch.float64)

    apply: Callable[[torch.Tensor], torch.Tensor] = Through.apply
    return apply


def _same(right: Array, wrong: Array) -> bool:
    return bool(np.all(np.abs(wrong - right) <= 2 * bounds.mean_square(TOKENS * DIM, UNIT_ROUNDOFF) * np.abs(right)))


def _losses(name: str) -> Array | None:
    """Return the losses of all subjects on all batches; None where a call raises."""
    try:
        return np.array([s(x, np.zeros_like(x), 0.0).loss for s in _subjects(name) for x in _batches()])
    except Exception:
        return None


def _batches() -> list[Array]:
    generator = np.random.default_rng(0)
    return [generator.standard_normal((TOKENS, DIM)).astype(np.float32).astype(np.float64) for _ in range(2)]


def _subjects(name: str) -> list[Subject]:
    """Return what the mutant changes: SimVQ with both estimators, a stack, codes that learn or move, or a term."""
    generator = np.random.default_rng(1)
    codes = generator.standard_normal((CODES, DIM)).astype(np.float32).astype(np.float64)
    module = MUTANTS[name].module
    if module.endswith(".residual"):
        stack = ResidualStack((codes, codes / 2), trained=True)
        build_stack: Any = residual_quantizer().lasting.build_stack  # type: ignore[union-attr]
        return [_lasting(lambda: build_stack(WantedStack(stack)))]
    if name in AUXILIARY_MUTANTS:
        return [_terms(codes)]
    if name in LASTING_MUTANTS:
        build: Any = vector_quantize().lasting.build  # type: ignore[union-attr]
        estimator: Any = "directional" if module.endswith(".estimators") else "straight_through"
        learns = Wanted(VectorQuantize(codes[None], trained=True, estimator=estimator))
        follows = Wanted(VectorQuantize(codes[None]), Averaging(decay=0.8, epsilon=1e-5))
        return [_lasting(lambda: build(learns)), _lasting(lambda: build(follows))]
    implementation = reference_module() if module.startswith("vq_reference.nn.") else oracle()
    weight = np.eye(DIM) + np.tri(DIM, k=-1) / 2
    made: list[Subject] = []
    for estimator in ("straight_through", "rotation"):
        layer = SimVQ(codes, (Affine(weight),), estimator=estimator)
        built = implementation.build(layer)

        def call(x: Array, g: Array, g_loss: float, built: Any = built, size: int = len(codes)) -> Reply:
            answer = built(x, [Cotangent(g, g_loss)])
            at_x = answer.gradients[0].x
            valid = np.clip(answer.indices, 0, size - 1)
            decoded = built.decode(valid)
            return Reply(
                answer.output, answer.indices, answer.loss, np.zeros_like(x) if at_x is None else at_x, decoded
            )

        made.append(call)
    return made


def _terms(codes: Array) -> Subject:
    """Return a layer that hands its tokens on, and whose loss is all auxiliary terms together."""
    terms: Any = vector_quantize().auxiliary

    def call(x: Array, g: Array, g_loss: float) -> Reply:
        indices = nearest.nearest(x, codes)
        spread = terms.diversity(x, (1, len(x)), codes, 1.0)
        others = terms.orthogonality(codes).value + terms.perplexity(indices, CODES) + terms.usage(indices, CODES)
        return Reply(x, indices, spread.value + others, g + g_loss * spread.x, x)

    return call


def _lasting(make: Callable[[], Any]) -> Subject:
    """Return a layer that is made anew for every call: a step of a moving average changes the next answer."""

    def call(x: Array, g: Array, g_loss: float) -> Reply:
        losses = len(make()(x).losses)
        reply = make()(x, Start(g, [g_loss] * losses))
        at_x = np.zeros_like(x) if reply.reached.x is None else reply.reached.x
        return Reply(reply.output, reply.indices, float(np.sum(reply.losses)), at_x, make().decode(reply.indices))

    return call
