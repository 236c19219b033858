"""Which law kills which mutant, after how many examples, and what plain tools see of the same faults.

``python -m vq_reference.testing.kill_matrix`` computes what is missing and writes the page ``docs/kill-matrix.md``.
"""
