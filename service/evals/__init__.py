"""Evals: cases of `evals.yaml`, asked of a service of their own, judged, compared with a baseline (docs/evals.md)."""
