"""Pinned cases and finite-difference checks. Nothing imports from here."""
