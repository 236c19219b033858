"""What is said of a verdict: on the terminal, in files, as a script for a bug report."""
