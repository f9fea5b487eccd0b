"""A stand-in for the Messages API: a program of its own, started with `python -m offline_model`."""
