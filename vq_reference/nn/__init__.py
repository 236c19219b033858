"""The reference as torch modules that a user can train with."""

from vq_reference.nn.sim_vq import SimVQ

__all__ = ["SimVQ"]
