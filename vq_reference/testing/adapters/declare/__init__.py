"""From what a user declares of a module or function to an `Implementation`: `torch_quantizer` and its like."""
