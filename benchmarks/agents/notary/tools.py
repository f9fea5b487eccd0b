"""Tool that a person must approve, so that each run waits once."""

from service.tools import tool


@tool(risk="write", idempotent=False, trusted=True)
def file_note(text: str) -> str:
    """File a note."""
    return f"filed {text}"
