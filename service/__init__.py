"""Slipway, and its version, which the Dockerfile's label repeats; a test compares the two."""

__version__ = "0.1.0"
