"""OpenAI's dialect, for the doors that speak it: bodies, streams and errors."""
