"""Error bounds, one formula a function, each with its derivation."""
