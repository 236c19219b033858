"""Laws that are expected to break: which, why, since when and until when, in a TOML file that a reviewer can read.

    [["loss.encoder_half"]]
    reason = "with the rotation the encoder half of the loss gets no gradient"
    link = "https://github.com/lucidrains/vector-quantize-pytorch/issues/177"
    when = { vector-quantize-pytorch = ">=1.20.1, <1.20.11" }
    expires = 2027-01-01

The table's name is the law's id; it may be given several times, with other conditions. Only `reason` is required.
An expected break that holds fails the run: a list of known faults that nobody is told to shorten only grows.
"""

from vq_reference.testing.run.expectations.draft import draft
from vq_reference.testing.run.expectations.expectation import Expectation, ExpectationsRefused, expect, load, shipped

__all__ = ["Expectation", "ExpectationsRefused", "draft", "expect", "load", "shipped"]
