"""Numbers in text, in ASCII digits alone: `int`, `Decimal`, `float` and `\\d` also take the digits of other scripts."""

from __future__ import annotations

import re
from decimal import Decimal

_WHOLE = re.compile(r"[0-9]{1,9}")
_AMOUNT = re.compile(r"[+-]?[0-9]{1,12}(?:\.[0-9]{1,12})?")  # as many as Decimal multiplies exactly


def whole_number(text: str) -> int | None:
    """A whole number of at most nine digits; None for anything else, such as a sign, a space or an underscore."""
    return int(text) if _WHOLE.fullmatch(text) else None


def amount(text: str) -> Decimal:
    """A decimal number such as `12.50`, of at most 12 digits before and after the point. Raises `ValueError`."""
    if _AMOUNT.fullmatch(text) is None:
        raise ValueError("is not an amount such as 12.50")
    return Decimal(text)
