"""Sets of sentences with labelled spans, and of look-alikes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from tests.guardrails.data.values import KINDS, Values

_HERE = Path(__file__).parent
_PLACE = re.compile(r"\{([a-z0-9_]+)\}")


class Sentence(NamedTuple):
    """Text of a language, and its spans: kind, begin, end."""

    language: str
    text: str
    spans: list[tuple[str, int, int]]


def sections(name: str) -> dict[str, list[str]]:
    sections: dict[str, list[str]] = {}
    for line in (_HERE / name).read_text().splitlines():
        if found := re.fullmatch(r"\[([a-z-]+)\]", line):
            sections[found[1]] = lines = []
        elif not line.startswith("# "):
            lines.append(line)
    return sections


def sentences(seed: int, *, held: bool = False, rounds: int = 1) -> list[Sentence]:
    """Fill each sentence `rounds` times. `held`: those that the detectors were not written with."""
    values = Values(seed)
    found = []
    for language, lines in sections("sentences.txt").items():
        if language.endswith("-held") == held:
            found += [_fill(language[:2], line, values) for _ in range(rounds) for line in lines]
    return found


def _fill(language: str, line: str, values: Values) -> Sentence:
    text, done, spans = "", 0, []
    for place in _PLACE.finditer(line):
        text += line[done : place.start()]
        value = values.make(place[1])
        spans.append((KINDS[place[1]], len(text), len(text) + len(value)))
        text, done = text + value, place.end()
    return Sentence(language, text + line[done:], spans)


def look_alikes(*, held: bool = False) -> list[str]:
    return sections("look_alikes.txt")["held" if held else "seen"]


def labelled() -> list[tuple[str, str]]:
    """Return texts with the kind of the one thing that is found in each."""
    lines = (_HERE / "labelled.txt").read_text().splitlines()
    pairs = (line.split("|", 1) for line in lines if not line.startswith("# "))
    return [(kind, text.replace("\\n", "\n")) for kind, text in pairs]
