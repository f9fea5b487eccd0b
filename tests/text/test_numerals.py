"""Numbers are read from ASCII digits alone, wherever they come from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.text.numerals import amount, whole_number

# Arabic, full-width, raised, Bengali, Roman, circled, and what `int` or `Decimal` takes besides digits.
FOREIGN = [
    "١٢",
    "１２",
    "²",
    "১২",
    "Ⅻ",
    "①",
    "1２",
    " 12",
    "12\n",
    "1_2",
    "+١",
    "0x10",
    "1e3",
    "",
    "NaN",
    "Infinity",
]


@pytest.mark.parametrize("text", [*FOREIGN, "-1", "+1", "1.0", "1" * 10])
def test_no_whole_number(text: str) -> None:
    assert whole_number(text) is None


@pytest.mark.parametrize("text", [*FOREIGN, "1,5", ".5", "5.", "1.٥", "1" * 13, "1e999999999"])
def test_no_amount(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not an amount such as 12\.50"):
        amount(text)


@given(st.integers(0, 999_999_999))
def test_whole_numbers(number: int) -> None:
    assert whole_number(str(number)) == whole_number(f"{number:09}") == number


@given(st.decimals(-(10**12) + 1, 10**12 - 1, places=12))
def test_amounts_are_exact(number: object) -> None:
    assert amount(f"{number:f}") == number
