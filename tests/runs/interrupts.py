"""Tools that a test holds in the middle of their call."""

from __future__ import annotations

import threading

TOOLS = '''
from service.tools import tool
from tests.runs import interrupts


@tool(trusted=True)
def pay(order: str) -> str:
    """Pay for an order."""
    return interrupts.call(f"paid {order}")


@tool(idempotent=True, risk="read", trusted=True)
def look(order: str) -> str:
    """Look an order up."""
    return interrupts.call(f"looked {order}")
'''
begun, may_end = threading.Event(), threading.Event()
made: list[str] = []


def call(effect: str) -> str:
    begun.set()
    made.append(effect)
    may_end.wait(30)
    return effect


def reset() -> None:
    begun.clear()
    may_end.clear()
    made.clear()
