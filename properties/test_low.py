"""Low precision: tokens of 16 bits, or autocast, are quantized as well as their dtype allows.

The rate of tokens with another code than the nearest has no bound that can be derived. It is reported, beside that of a
straightforward search in the same dtype.
"""

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from vq_reference import nearest
from vq_reference.testing.interface.precision import INTEGERS, PRECISIONS
from vq_reference.testing.interface.stateful import Averaging, Use
from vq_reference.testing.interface.subjects import start
from vq_reference.testing.laws.assertions import assert_one_of, assert_within, report
from vq_reference.testing.laws.bounds import bounds, bounds_state
from vq_reference.testing.laws.expected.ema_step import with_a_far_code
from vq_reference.testing.laws.expected.nearest_per_head import as_compared, codes_of, excesses, heads_of, off
from vq_reference.testing.laws.law import law
from vq_reference.testing.laws.strategies.stateful_cases import modes, subjects, whole_subjects

SOURCE = "Higham, Accuracy and Stability of Numerical Algorithms, §3.1"
KINDS = ("float16", "bfloat16", "autocast")
LOW = {"lasting", *(f"cast:{kind}" for kind in KINDS)}
kinds = st.sampled_from(KINDS)


def called(implementation, subject, kind, x=None, use=Use()):
    """Return the precision and the reply to tokens that it holds exactly."""
    precision = PRECISIONS["bfloat16" if kind == "autocast" else kind]
    layer = implementation.lasting.cast(implementation.lasting.build(subject.wanted), kind)
    x = subject.x if x is None else x
    assert np.array_equal(precision.round(x), x), "the case is drawn in numbers that every dtype holds"
    return precision, layer(x, start(x), use)


def by_straightforward_search(t, codes, precision):
    """Return the choices of ‖t‖² − 2t·c + ‖c‖² with every product and sum rounded to the dtype."""
    rounded = precision.round

    def dot(a, b):
        total = np.zeros(np.broadcast_shapes(a.shape[:-1], b.shape[:-1]))
        for i in range(a.shape[-1]):
            total = rounded(total + rounded(a[..., i] * b[..., i]))
        return total

    t, codes = rounded(t), rounded(codes)
    squares = rounded(dot(t, t)[:, None] + dot(codes, codes))
    return rounded(squares - 2 * dot(t[:, None], codes)).argmin(axis=1)


@law("low.nearest", level="should", source=SOURCE, needs=LOW, subject=subjects(), kind=kinds)
def test_in_low_precision_the_chosen_code_is_nearly_the_nearest(implementation, subject, kind):
    """In float16, bfloat16 and under autocast no code is nearer than the chosen one by more than rounding explains."""
    precision, reply = called(implementation, subject, kind)
    u, compared = precision.unit_roundoff, as_compared(subject.layer)
    tokens = heads_of(compared, subject.x)
    for head, (excess, bound) in enumerate(excesses(subject.layer, subject.x, reply.indices, u)):
        t, codes = tokens[:, head], codes_of(compared, head)
        distances = nearest.distances(t, codes)
        naive = distances[np.arange(len(t)), by_straightforward_search(t, codes, precision)]
        report("rate of wrong codes", float(np.mean(excess > 0)))
        report("rate of wrong codes of a straightforward search", float(np.mean(naive > distances.min(axis=1))))
        assert_within(f"excess of head {head}", excess, 0.0, bound)


@law("low.exact", level="should", source=SOURCE, needs=LOW | {"euclidean"}, subject=whole_subjects(), kind=kinds)
def test_in_low_precision_a_choice_in_which_nothing_rounds_is_the_nearest(implementation, subject, kind):
    """In float16, bfloat16 and under autocast small whole numbers have the nearest code, of some hundreds too.

    With D ≤ 4 whole entries of at most 2, ‖x‖² + 2|x|·|c| + ‖c‖² ≤ 16 + 32 + 16: every product and partial sum, in any
    order, is a whole number up to 64, and bfloat16 holds those up to 256. Roots of two such, n < m ≤ 64, are apart by
    more than √m/(2m) ≥ 2u√m, u = 2⁻⁸, and so they are as far as they round. No search needs to err, and none may.
    """
    _, reply = called(implementation, subject, kind)
    ((excess, _),) = excesses(subject.layer, subject.x, reply.indices, 0.0)
    # squares of such distances are whole: what the roots left of that is the law's own
    assert_within("excess of head 0", np.round(excess), 0.0, 0.0)


# ε that a count of `CROWD` tokens takes below every number of float16, and that float16 holds by itself
averaged = subjects("ema", "euclidean", "plain", st.just(Averaging(0.5, 2.0**-20)), tokens=(1, 4))
CROWD = 64
LONG = 26  # steps after which less of a count is left than half of float16's smallest number, 2⁻²⁴


@law(
    "low.dead_code",
    level="should",
    source="van den Oord et al., arXiv 1711.00937, A.1, with Laplace smoothing: no code divides by 0",
    needs=LOW | {"ema", "smoothing"},
    subject=averaged,
    kind=kinds,
)
def test_in_low_precision_a_code_that_no_token_chooses_stays_finite(implementation, subject, kind):
    """In float16, bfloat16 and under autocast a code that no token chooses for long is finite, as is the output.

    Ñ_k ≥ N_k·N/(N + Kε) and |m_k| ≤ N_k·max(|c|, |t|), so that |m_k/Ñ_k| ≤ max(|c|, |t|)·(1 + Kε/N), and Ñ_k > 0 by its
    ε: a code becomes infinite or NaN only in an arithmetic in which Ñ_k is 0.
    """
    far = with_a_far_code(subject)
    layer = implementation.lasting.cast(implementation.lasting.build(far.wanted), kind)
    x = np.tile(far.x, (CROWD, 1))
    for _ in range(LONG):
        reply = layer(x)
    codes = layer.codes()
    assert_within("finite codes", np.isfinite(codes), 1.0, 0.0)
    assert_within("finite output", np.isfinite(reply.output), 1.0, 0.0)


@law("low.output", level="should", source=SOURCE, needs=LOW, subject=subjects(), kind=kinds, training=modes())
def test_in_low_precision_the_output_is_the_code_to_rounding(implementation, subject, kind, training):
    """In float16, bfloat16 and under autocast the output is the chosen codes up to that dtype's rounding."""
    precision, reply = called(implementation, subject, kind, use=Use(training))
    layer, u = subject.layer, precision.unit_roundoff
    groups = np.arange(layer.heads) % len(layer.codes)
    effective = np.stack([codes_of(layer, group) for group in range(len(layer.codes))])
    q = effective[groups, reply.indices]
    tokens, delta = heads_of(layer, subject.x), off(layer, subject.x, u)[..., None]
    at_codes = bounds_state.unit(q.shape[2], u) if layer.unit else 0.0
    rows_off = (u * (1 + u) * (np.abs(q) + np.abs(tokens) + delta) + u * np.abs(q) + at_codes).reshape(len(q), -1)
    rows, out = q.reshape(len(q), -1), layer.project_out
    expected = rows if out is None else rows @ out.weight.T + out.bias
    through = np.eye(rows.shape[1]) if out is None else np.abs(out.weight)
    affine = bounds_state.affine(out, rows, u)
    bound = rows_off @ through.T * (1 + bounds.gamma(rows.shape[1] + 1, u)) + affine + u * np.abs(expected)
    assert_within("output", reply.output, expected, bound * (1 + u))


@law("low.finite", level="should", source=SOURCE, needs=LOW, subject=subjects(parts="plain"), kind=kinds)
def test_in_low_precision_finite_tokens_have_finite_outputs(implementation, subject, kind):
    """Tokens so long that their squares overflow float16 have finite outputs and valid indices."""
    long = subject.x * 2.0**10
    assume(np.all(np.linalg.norm(subject.x, axis=1) > 0))
    _, reply = called(implementation, subject, kind, long)
    assert_within("finite output", np.isfinite(reply.output), 1.0, 0.0)
    size = subject.layer.codes.shape[1]
    assert np.all((reply.indices >= 0) & (reply.indices < size)), f"an index is none of 0 … {size - 1}"


@law("low.form", level="should", source="what a user of torch relies on", needs=LOW, subject=subjects(), kind=kinds)
def test_in_low_precision_dtypes_are_those_of_the_input(implementation, subject, kind):
    """The output has the dtype of the tokens, the loss a floating one, the indices an integer one."""
    _, reply = called(implementation, subject, kind)
    output, indices, loss = reply.dtypes
    # under autocast a projection out may leave its own dtype behind, as nn.Linear does
    wanted = (implementation.precision.name, "bfloat16") if kind == "autocast" else (kind,)
    assert_one_of("dtype of the output", output, wanted)
    assert_one_of("dtype of the indices", indices, INTEGERS, "an integer dtype")
    assert_one_of("dtype of the loss", loss, PRECISIONS, "a floating dtype")
