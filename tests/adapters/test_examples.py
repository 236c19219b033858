"""The examples: every shape is described in a few lines, and does what its lines say."""

import inspect

import pytest

from vq_reference.testing.describe.adapter_check import contradictions
from vq_reference.testing.run.targets import implementation_of, object_of

SHAPES = (
    *("tuple_channel_last", "image_flat_indices", "projections_cosine", "moving_average", "residual_stack"),
    "bare_estimator",
)
MOST_LINES = 11


@pytest.fixture(scope="module")
def examples(pytestconfig):
    return pytestconfig.rootpath / "examples"


@pytest.mark.parametrize("shape", SHAPES)
def test_an_example_does_what_its_adapter_declares(shape, examples):
    assert contradictions(implementation_of(f"{examples}/{shape}.py:adapter")) == []


@pytest.mark.parametrize("shape", SHAPES)
def test_an_adapter_takes_few_lines(shape, examples):
    lines = inspect.getsource(object_of(f"{examples}/{shape}.py:adapter")).splitlines()
    assert len(lines) <= MOST_LINES
