"""Released wheels: each fetched into a folder of its own, and run in a process of its own."""
