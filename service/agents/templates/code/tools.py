"""Tools of this agent, which its code calls by name."""

from service.tools import tool


@tool(idempotent=True, risk="read", timeout=5)
def opening_hours() -> str:
    """Look up the library's opening hours."""
    return "Monday to Friday from 9 to 18, and Saturday from 9 to noon."
