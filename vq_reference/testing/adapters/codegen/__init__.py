"""A module, a function or a call as the source text of plain torch."""
