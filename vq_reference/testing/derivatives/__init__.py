"""Derivatives through stop-gradients, checked on any torch module. Start at `check_gradient`."""

from vq_reference.testing.derivatives.check import check_gradient
from vq_reference.testing.derivatives.report import Agreement, Comparison, GradientReport, Jacobian

__all__ = ["Agreement", "Comparison", "GradientReport", "Jacobian", "check_gradient"]
