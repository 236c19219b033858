"""What an implementation under test declares, is asked and answers: NumPy alone, and nothing else of this package."""
