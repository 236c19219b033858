"""Adapters that come with this package, by the package that they are for."""
