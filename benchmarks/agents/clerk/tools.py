"""Tool that changes something, so that the audit has two rows for each call."""

from service.tools import tool


@tool(risk="write", idempotent=False, trusted=True)
def file_note(text: str) -> str:
    """File a note."""
    return f"filed {text}"
