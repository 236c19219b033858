"""What a declaration gets wrong is one error, when the target is made, with both sides and the remedy."""

import pytest
import torch
from plain_quantizers import Follows, Plain, broken, follows
from torch import nn

from vq_reference.testing.adapters.declare.torch_quantizer import torch_quantizer
from vq_reference.testing.interface.errors import DeclarationContradicted


class PaddingMarked(Follows):
    """Its mask is True at padding, as torch's key_padding_mask is."""

    def forward(self, x, key_padding_mask=None):
        """Return output, indices and loss of what is not marked."""
        return super().forward(x, None if key_padding_mask is None else ~key_padding_mask)


class PaddingCounted(PaddingMarked):
    """Its loss counts padding."""

    def forward(self, x, key_padding_mask=None):
        output, indices, loss = super().forward(x, key_padding_mask)
        return output, indices, loss * (1 if key_padding_mask is None else (~key_padding_mask).float().mean())


def test_a_mask_that_is_true_at_padding_can_be_declared():
    assert not broken(follows(PaddingMarked, mask="~key_padding_mask"), "mask")
    assert "mask.tokens" in broken(follows(PaddingCounted, mask="~key_padding_mask"), "mask")


@pytest.mark.parametrize(
    ("module", "given", "remedy"),
    [(PaddingMarked, "key_padding_mask", "'~key_padding_mask'"), (Follows, "~mask", "'mask'")],
)
def test_a_mask_the_wrong_way_round_is_one_error(module, given, remedy):
    with pytest.raises(DeclarationContradicted, match=f"give {remedy} for a mask the other way round"):
        follows(module, mask=given)


def test_a_function_that_returns_another_table_than_it_was_given_is_one_error():
    def whole(module, codes):
        module.codes.data = torch.cat([codes, codes[:1]])
        return module.codes

    with pytest.raises(DeclarationContradicted, match=r"a tensor of \(4, 4\), for codes of \(3, 4\)"):
        torch_quantizer(Plain, whole)


def test_a_buffer_that_is_not_there_cannot_be_declared_to_change():
    with pytest.raises(DeclarationContradicted, match=r"\['step'\], found: no such parameter or buffer among codes"):
        torch_quantizer(Plain, "codes", state_changes=["step"])


def test_a_codebook_of_other_sizes_is_told_from_one_that_lies_the_other_way():
    with pytest.raises(DeclarationContradicted, match=r"\(hand wanted\.codebook_dim and wanted\.codebook_size"):
        torch_quantizer(lambda asked: Plain(asked._replace(codebook_size=7)), "codes")
    with pytest.raises(DeclarationContradicted, match=r"\(K, D\): leave out \.T"):
        torch_quantizer(Plain, "codes.T")


class OutputAlone(Plain):
    """In eval it registers a cache, and returns its output and nothing else."""

    def forward(self, x):
        output, *others = super().forward(x)
        if self.training:
            return output, *others
        self.register_buffer("lengths", self.codes.detach().norm(dim=-1), persistent=False)
        return output


def test_eval_may_return_less_where_it_is_not_declared_as_training():
    assert not broken(torch_quantizer(OutputAlone, "codes", eval_as_training=False), "loss", "form")
    torch_quantizer(OutputAlone, "codes", eval_as_training=False, state_changes=["lengths"])


class Methods(Plain):
    """Has its two methods alone."""

    forward = nn.Module.forward

    def quantize(self, x):
        return Plain.forward(self, x)


def test_a_module_without_forward_is_asked_for_a_call():
    with pytest.raises(ValueError, match="Methods has no forward: expected call="):
        torch_quantizer(Methods, "codes")
    assert not broken(torch_quantizer(Methods, "codes", call=lambda module, x: module.quantize(x)), "loss", "call")


class LossOfTwoAxes(Plain):
    """Its loss is one number, of shape (1, 1)."""

    def loss(self, x, q):
        return super().loss(x, q).reshape(1, 1)


class LossOfEachToken(Plain):
    """Its loss is one number for each token."""

    def loss(self, x, q):
        return super().loss(x, q).expand(x.shape[:-1])


def test_a_loss_of_one_number_may_have_any_rank_and_one_of_several_is_one_error():
    assert not broken(torch_quantizer(LossOfTwoAxes, "codes"), "loss", "form")
    with pytest.raises(DeclarationContradicted, match=r"a loss of shape \(2, 2\) \(give loss_shape"):
        torch_quantizer(LossOfEachToken, "codes")
