"""`vq-check describe`: the conventions of somebody else's layer, found out by calling it."""
