"""The reference as torch modules that a user can train with."""
