"""Scripts that show what one law found, and that need nothing of this project: written, not run, here."""
