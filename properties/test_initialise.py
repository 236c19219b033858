"""Codes that are initialised from data: at the scale of the data, once, and never from padding."""

import contextlib

import numpy as np
from hypothesis import strategies as st

from vq_reference.testing.interface.stateful import Averaging, Use
from vq_reference.testing.laws.assertions import LawBroken, assert_within
from vq_reference.testing.laws.bounds import bounds_state
from vq_reference.testing.laws.expected.ema_step import FAR, with_a_far_code
from vq_reference.testing.laws.expected.hull import hull
from vq_reference.testing.laws.law import law
from vq_reference.testing.laws.strategies.stateful_cases import subjects

EMA = {"lasting", "ema"}
unsmoothed = st.sampled_from([0.5, 0.875]).map(Averaging)
plain = subjects("ema", "euclidean", "plain", unsmoothed)
# so small that it is felt by codes without tokens alone, which it keeps from 0/0: layers without ε are judged alike
initialising = st.just(Averaging(0.5, 2.0**-20, 0.0, True))


def assert_in_the_box(codes, tokens, u, averaging, steps, output=None):
    """Raise LawBroken unless codes, and outputs, are averages of tokens: no entry lies outside of theirs.

    After T steps N_k ≥ γ^T, so that smoothing changes a count by a share of at most s = (K + 1)ε/γ^T,
    and a code by s/(1 − s). The output is a code: x + (q − x) is off it by less than 4u of the largest entry, which is
    a part of the bound on codes.
    """
    low, high = tokens.min(axis=0), tokens.max(axis=0)
    size = np.maximum(np.abs(low), np.abs(high))[None]
    share = (len(codes) + 1) * averaging.epsilon / averaging.decay**steps
    rounding = bounds_state.ema_codes(size, np.ones(len(codes)), len(tokens), steps, u)
    bound = (rounding + size * share / (1 - share)).max(axis=0)
    for what, values in {"codes": codes, **({} if output is None else {"output": output})}.items():
        assert_within(what, values, np.clip(np.nan_to_num(values, nan=np.inf), low, high), bound)


@law(
    "initialise.scale",
    level="must",
    source="codes taken from the first batch, as in k-means",
    needs=EMA | {"initialise_from_data"},
    subject=subjects("ema", "euclidean", "plain", initialising, tokens=(2, 6)),
    steps=st.integers(1, 3),
    evaluated=st.booleans(),
)
def test_codes_from_data_have_the_scale_of_the_data(implementation, subject, steps, evaluated):
    """Codes from data lie among the data, and so do outputs, also after the first updates and after a call in eval."""
    far, u = with_a_far_code(subject), implementation.precision.unit_roundoff
    layer = implementation.lasting.build(far.wanted)
    if evaluated:  # before there are any; a layer may well refuse that
        with contextlib.suppress(Exception):
            layer(far.x, use=Use(training=False))
    for step in range(steps):
        output = layer(far.x).output
        assert_in_the_box(layer.codes()[0], far.x, u, far.wanted.averaging, step + 1, output)


@law(
    "initialise.once",
    level="must",
    source="codes taken from the first batch",
    needs=EMA | {"initialise_from_data"},
    subject=subjects("ema", "euclidean", "plain", initialising, tokens=(2, 12)),
)
def test_codes_are_initialised_once(implementation, subject):
    """Only the first batch initialises: a later one moves a used code by no more than its step, and no unused one."""
    layer = implementation.lasting.build(subject.wanted)
    layer(subject.x)
    before = layer.codes()[0]
    elsewhere = subject.x[:1] + 8
    reply = layer(elsewhere)
    unused = np.arange(len(before)) != reply.indices[0, 0]
    bound = hull(subject, before, elsewhere)(implementation.precision.unit_roundoff)
    assert_within("unused codes", layer.codes()[0, unused], before[unused], bound[unused])


@law(
    "initialise.padding",
    level="must",
    source="padding is no data",
    needs=EMA | {"initialise_from_data", "mask"},
    subject=subjects("ema", "euclidean", "plain", initialising, tokens=(2, 6)),
    padding=st.integers(1, 8),
)
def test_codes_are_never_initialised_from_padding(implementation, subject, padding):
    """Codes that are initialised from data are never taken from padding."""
    layer, alone = (implementation.lasting.build(with_a_far_code(subject).wanted) for _ in range(2))
    u, averaging = implementation.precision.unit_roundoff, subject.wanted.averaging
    alone(subject.x)
    try:
        assert_in_the_box(alone.codes()[0], subject.x, u, averaging, 1)
    except LawBroken:  # without padding too, as where a cluster has no tokens: initialise.scale says so
        return
    x = np.concatenate([subject.x, np.full((padding, subject.x.shape[1]), -FAR)])
    layer(x, mask=np.arange(len(x)) < len(subject.x))
    assert_in_the_box(layer.codes()[0], subject.x, u, averaging, 1)
