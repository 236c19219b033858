"""Ready adapters, each on the package that it is about, and described without it."""

import datetime
import importlib.util
import inspect

import numpy as np
import pytest

from vq_reference.codebook import Layer
from vq_reference.simvq import SimVQ
from vq_reference.testing.adapters.ready.lucidrains import PACKAGE
from vq_reference.testing.describe.adapter_check import check_declarations, contradictions
from vq_reference.testing.describe.describe import describe
from vq_reference.testing.interface.stateful import LASTING
from vq_reference.testing.laws.registry import laws
from vq_reference.testing.laws.verdict import Verdict
from vq_reference.testing.run.expectations import load, shipped
from vq_reference.testing.run.judge import judge
from vq_reference.testing.run.targets import READY, implementation_of, object_of

pytestmark = pytest.mark.filterwarnings("ignore")  # other packages warn of what they use
MODULES = {"vector-quantize-pytorch": "vector_quantize_pytorch", "diffusers": "diffusers", "encodec": "encodec"}
# open bugs of that package, which its laws are there to show
OPEN = {
    # N layers hand the gradient back N times
    "lucidrains.ResidualVQ[2]": [("estimator", "'other'")],
    # the update of the codes is taken from the output, whose gradient goes to the input: (1 + ν)·g there, none at codes
    "lucidrains.VectorQuantize[synchronous]": [("estimator", "'other'"), ("estimator", "'other'"), ("sync_nu", "0")],
}


def require(distribution):
    module = MODULES.get(distribution, distribution)
    if module is not None and importlib.util.find_spec(module) is None:
        pytest.skip(f"{distribution} is not installed: tox -e packages")


@pytest.mark.parametrize("target", READY)
def test_a_ready_adapter_declares_what_its_package_does(target):
    require(READY[target].distribution)
    made = implementation_of(target)
    check_declarations(made)
    found = [(c.declaration, c.found) for c in contradictions(made)]
    assert found == OPEN.get(target, [])


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
    assert ready.capabilities - described.capabilities <= {"decode", *LASTING}
    assert described.metric == ready.metric


# Distances by the expanded square, x + sg(q − x), which loses q where x is long, and averages that shrink without
# tokens, replace nothing and move in calls without gradients.
SHOULD = {"nearest.offset", "output.extreme", "ema.shrinkage", "replace.stays", "state.checkpoint"}


@pytest.mark.parametrize("target", [name for name in READY if READY[name].distribution not in (None, PACKAGE)])
def test_a_ready_adapter_breaks_what_its_package_is_known_to_break(target):
    """What stays is theirs: must-laws among the shipped expectations, and these should-laws."""
    require(READY[target].distribution)
    tested, today = implementation_of(target), datetime.date.today()
    expectations = [each for path in shipped().values() for each in load(path, laws())]
    expected = {each.law for each in expectations if each.applies(target, tested.versions, today)}
    ended = [judge(law, tested, "quick", None)[0] for law in laws().values() if not tested.lacks(law.needs)]
    not_held = {o.law for o in ended if o.verdict not in (Verdict.HELD, Verdict.NOT_APPLICABLE)}
    assert expected <= not_held <= expected | SHOULD


# names of methods from indices to outputs, and of arguments for padding, in the packages that there are adapters for
DECODES = {"decode", "decode_code", "from_codes", "indices_to_codes", "get_output_from_indices", "get_codebook_entry"}
PADDING = {"mask": "mask", "lens": "lengths", "lengths": "lengths"}
# what a mode cannot have: an image has no padding, by an assertion of its class
WITHOUT = {"lucidrains.VectorQuantize[image]": {"mask", "lengths"}}


def module_of(made):
    """Return a module that the adapter makes."""
    dim, size = made.sizes or (4, 3)
    return made.build(SimVQ(np.ones((size, dim)), (Layer(np.eye(dim)),), "straight_through")).module


@pytest.mark.parametrize("target", [each for each in READY if "[ranks]" not in each and each != "reference.oracle"])
def test_a_ready_adapter_declares_what_its_class_offers(target):
    require(READY[target].distribution)
    made = implementation_of(target)
    module = module_of(made)
    taken = inspect.signature(type(module).forward).parameters
    offered = {capability for argument, capability in PADDING.items() if argument in taken}
    offered |= {"any_decode"} if any(hasattr(module, name) for name in DECODES) else set()
    assert offered - WITHOUT.get(target, set()) <= made.offers
