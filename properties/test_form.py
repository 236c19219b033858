"""Shapes and dtypes of what a call returns."""

import numpy as np

from vq_reference.testing.interface.precision import INTEGERS
from vq_reference.testing.laws.assertions import assert_one_of
from vq_reference.testing.laws.law import law
from vq_reference.testing.laws.strategies.simvq_cases import cases, large_codebooks

USER = "what a user of any layer relies on"


@law("form.output", level="must", source=USER, needs={"form"}, case=cases())
def test_the_output_has_the_form_of_the_input(implementation, case):
    """The output has the shape of the input, or that of its declared layout, and the input's dtype and device."""
    form = implementation.build(case.reference)(case.x).form
    assert_one_of("shape of the output", form.output_shape, [form.output_expected])
    assert_one_of("dtype of the output", form.output_dtype, [implementation.precision.name])
    assert_one_of("output on the input's device", form.same_device, [True])


@law("form.indices", level="must", source=USER, needs={"form", "indices"}, case=cases() | large_codebooks())
def test_the_indices_are_integers_one_for_each_token(implementation, case):
    """The indices have the declared shape, and an integer dtype that holds the last index, K − 1."""
    form = implementation.build(case.reference)(case.x).form
    assert_one_of("shape of the indices", form.indices_shape, [form.indices_expected])
    last = len(case.codes) - 1
    wide = [dtype for dtype in INTEGERS if last <= np.iinfo(dtype).max]
    assert_one_of("dtype of the indices", form.indices_dtype, wide, f"an integer dtype that holds {last}")


@law("form.loss", level="must", source=USER, needs={"form", "loss"}, case=cases())
def test_the_loss_has_the_declared_shape_and_dtype(implementation, case):
    """The loss is a scalar of the dtype that is computed in, float32 where that is narrower, or as declared."""
    form = implementation.build(case.reference)(case.x).form
    assert_one_of("shape of the loss", form.loss_shape, [form.loss_expected])
    computed = implementation.precision.name
    usual = (computed, "float32") if computed in ("float16", "bfloat16") else (computed,)
    wanted = usual if implementation.loss_dtype is None else (implementation.loss_dtype,)
    assert_one_of("dtype of the loss", form.loss_dtype, wanted)
