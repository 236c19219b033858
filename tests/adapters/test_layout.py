"""Layouts: what is arranged is restored, and what cannot be is refused."""

import pytest
import torch

from vq_reference.testing.adapters.torch.layout import Layout

TEXTS = (
    "(...) D",
    "B T D",
    "B D T",
    "B D H W",
    "B H W D",
    "(B T) D",
    "1 B D 1",
    "D B",
    "B ... D",
    "... D",
    "(B ...) D",
)


@pytest.mark.parametrize("text", TEXTS)
def test_restoring_takes_an_arrangement_back(text):
    rank = 3 if "..." in text else len(Layout.of(text).leading)
    layout = Layout.of(text).spelled(rank)
    sizes = dict(zip(layout.leading, (2, 3, 5), strict=False)) | {"D": 4}
    order = (*layout.leading, "D")
    tokens = torch.arange(torch.tensor([sizes[n] for n in order]).prod()).reshape([sizes[n] for n in order])
    lying = layout.arrange(tokens, order)
    assert tuple(lying.shape) == layout.shape(sizes)
    assert torch.equal(layout.restore(lying, order, sizes), tokens)


@pytest.mark.parametrize("text", ["B B D", "", "(B D) B"])
def test_an_axis_stands_once(text):
    with pytest.raises(ValueError, match="expected each axis once"):
        Layout.of(text)


@pytest.mark.parametrize(("text", "rank"), [("B T D", 3), ("B H W D", 2), ("B T ... D", 1)])
def test_leading_dimensions_that_do_not_fit_are_refused(text, rank):
    with pytest.raises(ValueError, match=f"{rank} leading dimensions"):
        Layout.of(text).spelled(rank)


@pytest.mark.parametrize("count", range(13))
@pytest.mark.parametrize("text", TEXTS)
def test_natural_dimensions_hold_every_token(text, count):
    assert torch.tensor(Layout.of(text).natural(count)).prod() == count


def test_text_and_layout_say_the_same():
    for text in TEXTS:
        assert str(Layout.of(text)) == text
