"""Sets of sentences and look-alikes in parts `a` to `e`, each written before the detectors were tried on it."""

from __future__ import annotations

import random
import re

from tests.guardrails.data.fresh_values import FreshValues
from tests.guardrails.data.sets import Sentence, sections

_PLACE = re.compile(r"\{([a-z]+(?:_[A-Za-z0-9]+)?)\}")
_PLACES = {"x"}  # braces of code


def _fill(language: str, line: str, values: FreshValues) -> Sentence:
    line, text, done, spans = line.replace("\\n", "\n"), "", 0, []
    for place in _PLACE.finditer(line):
        if place[1] in _PLACES:
            continue
        text += line[done : place.start()]
        kind, value = values.make(place[1])
        if kind:
            spans.append((kind, len(text), len(text) + len(value)))
        text, done = text + value, place.end()
    return Sentence(language, text + line[done:], spans)


def fresh_sentences(part: str, seed: int, rounds: int) -> list[Sentence]:
    values = FreshValues(seed)
    return [
        _fill(name[:2], line, values)
        for name, lines in sections("fresh_sentences.txt").items()
        if name.endswith(f"-{part}")
        for _ in range(rounds)
        for line in lines
    ]


def fresh_look_alikes(part: str, seed: int, rounds: int) -> list[str]:
    """Return the look-alikes of a part, each once, with other values in each round."""
    values = FreshValues(seed)
    lines = sections("fresh_look_alikes.txt")[part]
    found = [_fill("en", line, values).text for _ in range(rounds) for line in lines]
    random.Random(seed).shuffle(found)
    return list(dict.fromkeys(found))
