"""What "correct" means for a vector quantizer: a float64 reference, and the laws that check any other one.

The reference (this package's own modules) is NumPy only. ``vq_reference.nn`` says the same in torch,
``vq_reference.testing`` holds what the laws are made of, ``vq_reference.properties`` and
``vq_reference.regressions`` are the laws.
"""

__version__ = "0.1.0"
