"""Slipway. Its version stands here; the Dockerfile's label repeats it, and a test compares the two."""

__version__ = "0.1.0"
