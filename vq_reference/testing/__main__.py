"""`python -m vq_reference.testing` is `vq-check`, for where scripts are not on the path."""

from vq_reference.testing.cli import app

app()
