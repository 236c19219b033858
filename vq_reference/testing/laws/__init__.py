"""What a law is, and all that laws are written with: assertions, bounds, expected answers, strategies."""
