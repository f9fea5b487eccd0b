"""Placeholders that are the same wherever a value comes up again: in later steps, attempts, turns and sub-agents."""

from __future__ import annotations

import hmac
import threading
from collections.abc import Mapping
from re import Match
from typing import Any

from service.guardrails.vault import LITERAL, LONGEST_VALUE, MOST_VALUES, Vault

MOST_KEPT, LONGEST_KEPT = 1_000, 500  # values that a session keeps, the newest, and characters of each
_NUMBERS = 999_999


class KeyedVault(Vault):
    """Vault whose numbers come from the values themselves, by a secret `key`.

    So sub-agents that work side by side, and a worker that takes a run up, need not agree on an order, and nobody can
    guess the placeholder of a value, or a value by its placeholder. Where two values have one number, which is rare,
    the later one gets the next that is free.
    """

    def __init__(self, key: bytes) -> None:
        super().__init__()
        self._key = key
        self._by_number: dict[tuple[str, int], str] = {}
        self._lock = threading.Lock()
        self.is_new = False  # it has values that it did not take in

    def placeholder(self, kind: str, value: str) -> str | None:
        """Return the placeholder of a value; None: the vault is full, or the value too long.

        A text that looks like a placeholder stays as it is: the model's own words hold some, and nobody guesses one.
        """
        if kind == LITERAL:
            return value
        label = kind.upper()
        with self._lock:
            number = self._numbers.get((label, value)) or self._new(label, value)
        return None if number is None else f"[{label}_{number}]"

    def _new(self, label: str, value: str) -> int | None:
        if len(self._numbers) >= MOST_VALUES or len(value) > LONGEST_VALUE:
            return None
        digest = hmac.digest(self._key, f"{label}\0{value}".encode("utf-8", "surrogatepass"), "sha256")
        number = int.from_bytes(digest[:8], "big") % _NUMBERS + 1
        while (label, number) in self._by_number:
            number = number % _NUMBERS + 1
        self.is_new = True
        self._put(label, number, value)
        return number

    def _put(self, label: str, number: int, value: str) -> None:
        self._by_number[label, number] = value
        self._numbers[label, value] = number

    def kept(self) -> dict[str, str]:
        """Return the newest values by placeholder, as JSON. They are personal data: keep them sealed."""
        found = [(f"{label}_{number}", value) for (label, number), value in list(self._by_number.items())]
        return dict([one for one in found if len(one[1]) <= LONGEST_KEPT][-MOST_KEPT:])

    def take(self, kept: Mapping[str, Any]) -> None:
        """Take in what `kept` has returned."""
        for mark, value in kept.items():
            label, _, number = mark.rpartition("_")
            self._put(label, int(number), value)

    def _value_of(self, match: Match[str]) -> str:
        return self._by_number.get((match[1], int(match[2])), match[0])
