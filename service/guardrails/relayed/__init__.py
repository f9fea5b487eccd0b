"""Guardrails on bodies and events that are relayed in a vendor dialect: see docs/adr/0054."""
