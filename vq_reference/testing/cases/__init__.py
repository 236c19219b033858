"""Pinned cases: a known bug each, as data that any language can read. Their format: ``docs/cases.md``."""
