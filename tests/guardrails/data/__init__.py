"""Sentences with personal data and secrets, made with a seed, and texts that only look like them."""
