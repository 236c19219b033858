"""What the laws are made of: adapters, bounds, strategies, derivatives, mutants, the runner."""
