"""Which law kills which mutant, after how many examples, and what plain tools see of the same faults.

``python -m studies.kill_matrix`` computes what is missing and writes the page ``docs/kill-matrix.md``.
"""
