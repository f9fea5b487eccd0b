"""Values in letters, chats, tables, JSON, YAML and logs, and look-alikes: written before the detectors were read."""

from __future__ import annotations

import re
from pathlib import Path

from tests.guardrails.data.mixed_values import KINDS, RNG, filler, value
from tests.guardrails.data.sets import Sentence

_HERE = Path(__file__).parent
_SLOT = re.compile("⟦(.+?)⟧")
_FILL = re.compile(r"\{([a-z][0-9]{1,2}|[a-z]|t2z|[nu][0-9])\}")
_ROUNDS = 4  # of other figures in each look-alike


def mixed_texts() -> list[Sentence]:
    RNG.seed(24)
    found = []
    for source in (_HERE / "mixed_texts.txt").read_text().split("\n%%\n"):
        text, done, spans = "", 0, list[tuple[str, int, int]]()
        for slot in _SLOT.finditer(source):
            text += source[done : slot.start()]
            new = value(slot[1])
            spans.append((KINDS.get(slot[1].split(".")[0], "national_id"), len(text), len(text) + len(new)))
            text, done = text + new, slot.end()
        found.append(Sentence("mixed", text + source[done:], spans))
    return found


def mixed_look_alikes() -> list[str]:
    RNG.seed(24)
    lines = (_HERE / "mixed_look_alikes.txt").read_text().splitlines()
    return [_FILL.sub(lambda one: filler(one[1]), line) for line in lines for _ in range(_ROUNDS)]
