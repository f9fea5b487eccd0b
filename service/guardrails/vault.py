"""Placeholders for personal data and their true values, within one session or run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MOST_VALUES = 5_000
LONGEST_VALUE = 16_384  # characters
LITERAL = "text"  # kind of what only looks like a placeholder
_MAX_DEPTH = 256
_MARK = re.compile(r"\[([A-Z][A-Z0-9_]{0,31})_([1-9][0-9]{0,5})\]")
_LONGEST_MARK = 41
_BEGUN = re.compile(r"\[(?:[A-Z][A-Z0-9_]{0,38})?\Z")  # a placeholder that may still be arriving


def placeholder_at(text: str, start: int, end: int) -> tuple[int | None, bool]:
    """Find a placeholder at `start`: its end, and whether one may still be arriving at `end`."""
    found = _MARK.match(text, start, end)
    return (found.end(), False) if found else (None, _BEGUN.match(text, start, end) is not None)


class Vault:
    """Placeholders such as `[EMAIL_1]`: the same value has the same one, numbers go up in the order of arrival.

    Text from outside that looks like a placeholder gets one itself (`[TEXT_1]`), so it is never restored to a value.
    """

    def __init__(self) -> None:
        self._values: dict[str, list[str]] = {}
        self._numbers: dict[tuple[str, str], int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def placeholder(self, kind: str, value: str) -> str | None:
        """Return the placeholder of a value; None: the vault is full, or the value too long to be kept."""
        label = kind.upper()
        number = self._numbers.get((label, value))
        if number is None:
            if len(self._numbers) >= MOST_VALUES or len(value) > LONGEST_VALUE:
                return None
            kept = self._values.setdefault(label, [])
            kept.append(value)
            number = self._numbers[label, value] = len(kept)
        return f"[{label}_{number}]"

    def restore(self, value: Any) -> Any:
        """Put true values in place of placeholders, in a text or in all texts of a JSON value."""
        return self._restored(value, _MAX_DEPTH) if self._numbers else value

    def to_json(self) -> dict[str, list[str]]:
        """Return all values as JSON. They are personal data: keep them sealed."""
        return {label: list(values) for label, values in self._values.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, list[str]]) -> Vault:
        vault = cls()
        for label, values in data.items():
            vault._values[label] = list(values)
            vault._numbers |= {(label, value): number for number, value in enumerate(values, 1)}
        return vault

    def _restored(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            return _MARK.sub(self._value_of, value) if "[" in value else value
        if depth <= 0:
            return value
        if isinstance(value, Mapping):
            return {self._restored(k, depth - 1): self._restored(v, depth - 1) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self._restored(one, depth - 1) for one in value]
        return value

    def _value_of(self, match: re.Match[str]) -> str:
        values = self._values.get(match[1], [])
        number = int(match[2])
        return values[number - 1] if number <= len(values) else match[0]


class Restorer:
    """Filter that restores the placeholders of a text as it arrives, in any chunking."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._held = ""

    def feed(self, text: str) -> str:
        """Take the next piece; return what may go on."""
        if not self._held and "[" not in text:
            return text
        text = self._held + text
        begun = _BEGUN.search(text, max(0, len(text) - _LONGEST_MARK))
        cut = begun.start() if begun is not None else len(text)
        self._held = text[cut:]
        done: str = self._vault.restore(text[:cut])
        return done

    def close(self) -> str:
        """End the text; return the rest."""
        rest, self._held = self._held, ""
        return rest
