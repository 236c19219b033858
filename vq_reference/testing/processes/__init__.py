"""A function run in a process of its own: where a release is what its name means, or as one rank of several."""
