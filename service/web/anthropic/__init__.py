"""Anthropic's dialect, for the door that speaks it: bodies, streams and errors."""
