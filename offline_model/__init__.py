"""Offline model: a mock Messages API server, started with `python -m offline_model`."""
