"""Guardrails on bodies and events that are relayed in a vendor's dialect; see docs/adr/0054-relayed-bytes-guarded.md."""
