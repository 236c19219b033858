"""How an implementation is described to the laws, and the descriptions that come ready."""
