"""The reference as torch modules that a user can train with."""

from vq_reference.nn.ema import EMACodebook
from vq_reference.nn.residual import ResidualQuantizer
from vq_reference.nn.sim_vq import SimVQ
from vq_reference.nn.vector_quantize import VectorQuantize

__all__ = ["EMACodebook", "ResidualQuantizer", "SimVQ", "VectorQuantize"]
