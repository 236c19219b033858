"""What the laws draw: layers and tokens, put where implementations go wrong."""
