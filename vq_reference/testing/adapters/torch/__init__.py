"""Calling a torch module: where its tensors lie, how its codes are set, one forward and its backward passes."""
