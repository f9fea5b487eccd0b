"""Guardrails on text: which is untrusted, and which links an answer may hold. Pure: no storage, no network."""
