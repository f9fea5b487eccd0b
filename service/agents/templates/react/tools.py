"""Tools of this agent: the model sees their names, docstrings and typed parameters."""

from typing import Literal

from service.tools import tool

DAYS = {"book": 28, "film": 7, "game": 14}


@tool(idempotent=True, risk="read", timeout=5)
def loan_days(kind: Literal["book", "film", "game"]) -> dict[str, int]:
    """Look up how many days an item may be borrowed.

    Args:
        kind: The kind of item.
    """
    return {"days": DAYS[kind]}
