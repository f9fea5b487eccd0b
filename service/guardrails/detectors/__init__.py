"""Detectors of personal data and secrets, one module a kind. Each matches at one place of a text."""
