"""Auxiliary terms at the border: what is declared has to be there, and what a release offers is found."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from vq_reference.testing.adapters.ready.lucidrains import PACKAGE
from vq_reference.testing.adapters.ready.lucidrains_terms import terms_of
from vq_reference.testing.adapters.ready.vector_quantize import vector_quantize
from vq_reference.testing.interface.auxiliary import TERMS, Auxiliary
from vq_reference.testing.laws.registry import laws
from vq_reference.testing.laws.verdict import Verdict
from vq_reference.testing.run.judge import judge
from vq_reference.testing.run.targets import READY, implementation_of


@pytest.mark.parametrize("auxiliary", [None, Auxiliary(orthogonality=lambda codes: None)], ids=["none", "another"])
def test_a_term_that_is_declared_and_absent_is_named(auxiliary):
    right = vector_quantize()
    capabilities = right.capabilities - set(TERMS) | {"diversity"}
    with pytest.raises(ValueError, match=r"capabilities has \['diversity'\]: expected auxiliary to have them too"):
        replace(right, capabilities=capabilities, auxiliary=auxiliary)


def test_a_release_has_the_terms_that_it_takes_weights_for():
    def early(dim, codebook_size, orthogonal_reg_weight=0.0): ...

    offered = terms_of(SimpleNamespace(VectorQuantize=early))
    assert {name for name in TERMS if getattr(offered, name)} == {"orthogonality"}


def test_of_the_installed_release_only_the_arrangement_is_wrong():
    """Its shares are averaged over the batch, and not over the sequence: see the shipped expectations."""
    target = "lucidrains.VectorQuantize[learnable]"
    assert READY[target].distribution == PACKAGE
    tested = implementation_of(target)
    ended = {name: judge(law, tested, "quick", None)[0].verdict for name, law in laws().items() if name[:4] == "aux."}
    assert {name for name, verdict in ended.items() if verdict is Verdict.BROKEN} == {"aux.diversity_arrangement"}
    assert {name for name, verdict in ended.items() if verdict is Verdict.NOT_APPLICABLE} == {
        *("aux.padding", "aux.perplexity", "aux.usage")
    }
