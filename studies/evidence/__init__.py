"""The runs, figures and numbers behind ``docs/why-the-loss-inflated.md``: ``python -m studies.evidence`` makes them."""
