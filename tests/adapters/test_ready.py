"""Ready adapters, each on the package that it is about, and described without it."""

import importlib.util

import pytest

from vq_reference.testing.describe import describe
from vq_reference.testing.describe_check import check_declarations, contradictions
from vq_reference.testing.targets import READY, implementation_of, object_of

pytestmark = pytest.mark.filterwarnings("ignore")  # other packages warn of what they use
MODULES = {"vector-quantize-pytorch": "vector_quantize_pytorch", "diffusers": "diffusers", "encodec": "encodec"}
# N layers hand the gradient back N times: an open bug of that package, which its laws are there to show
GAIN = "lucidrains.ResidualVQ[2]"


def require(distribution):
    module = MODULES.get(distribution, distribution)
    if module is not None and importlib.util.find_spec(module) is None:
        pytest.skip(f"{distribution} is not installed")


@pytest.mark.parametrize("target", READY)
def test_a_ready_adapter_declares_what_its_package_does(target):
    require(READY[target].distribution)
    made = implementation_of(target)
    check_declarations(made)
    found = [(c.declaration, c.found) for c in contradictions(made)]
    assert found == ([("estimator", "'other'")] if target == GAIN else [])


@pytest.mark.parametrize(
    ("distribution", "origin", "target"),
    [
        ("diffusers", "diffusers.models.autoencoders.vae:VectorQuantizer", "diffusers.VectorQuantizer"),
        ("encodec", "encodec.quantization.core_vq:VectorQuantization", "encodec.VectorQuantization"),
        ("snac", "snac.vq:VectorQuantize", "snac.VectorQuantize"),
    ],
)
def test_a_package_described_by_measurement_agrees_with_its_ready_adapter(distribution, origin, target):
    require(distribution)
    described, ready = describe(object_of(origin), origin).implementation(), implementation_of(target)
    assert contradictions(described) == []
    assert ready.capabilities - described.capabilities <= {"decode"}
    assert described.metric == ready.metric
