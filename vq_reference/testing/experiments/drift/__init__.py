"""Where torch itself moved: the same pinned inputs, computed in several environments and set side by side."""
