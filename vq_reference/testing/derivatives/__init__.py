"""Derivatives through stop-gradients, checked on any torch module. Start at `check_gradient`."""

from vq_reference.testing.derivatives.check import check_gradient
from vq_reference.testing.derivatives.report import Comparison, GradientReport, Jacobian, Verdict

__all__ = ["Comparison", "GradientReport", "Jacobian", "Verdict", "check_gradient"]
