"""Parsers of numbers in ASCII digits only: `int`, `Decimal`, `float` and `\\d` accept digits of other scripts too."""

from __future__ import annotations

import re
from decimal import Decimal

_WHOLE = re.compile(r"[0-9]{1,9}")
_AMOUNT = re.compile(r"[+-]?[0-9]{1,12}(?:\.[0-9]{1,12})?")  # within Decimal's exact precision


def whole_number(text: str) -> int | None:
    """Parse a whole number of at most nine digits; None for anything else, such as a sign, space or underscore."""
    return int(text) if _WHOLE.fullmatch(text) else None


def amount(text: str) -> Decimal:
    """Parse a decimal number such as `12.50`, with up to 12 digits before and after the point. Raises `ValueError`."""
    if _AMOUNT.fullmatch(text) is None:
        raise ValueError("is not an amount such as 12.50")
    return Decimal(text)
