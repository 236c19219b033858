"""Reproductions of known bugs from nothing: releases that have them, releases that do not, and how far apart they are.

`vq_reference.testing.experiments.issue_177.reproduce.reproduce_177` is the one that there is.
"""
