"""CPU of the guardrails' filter: microseconds for 1,000 characters, of several texts, whole and in pieces.

`python -m benchmarks.filters`. All kinds are on. Text with a sign of a match, such as a digit, costs more than words.
"""

from __future__ import annotations

import time
from pathlib import Path

from service.guardrails.filter import TextFilter
from service.guardrails.policy import SideSpec, parse_rails
from service.guardrails.vault import Vault
from tests.guardrails.data.sets import sentences

SIDE: SideSpec = parse_rails({"input": {"personal_data": "redact", "secret": "redact"}}).input
PIECES = (5, 20, 100, 1_000_000)  # characters
LENGTH, ROUNDS = 20_000, 5
TEXTS = {
    "words": "The harbour was quiet that evening, and nobody came to ask about the boats any more. " * 400,
    "documentation": (Path(__file__).parents[1] / "docs" / "running.md").read_text(),
    "full of personal data": " ".join(one.text for one in sentences(1, rounds=3)),
    "table of numbers": "\n".join(f"{row} {row * 7919 % 9973} {row * 31}.5" for row in range(2_000)),
}


def cost(text: str, size: int) -> float:
    """Return the least CPU time of several rounds, in microseconds for 1,000 characters."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        one = TextFilter(SIDE, Vault())
        for at in range(0, len(text), size):
            one.feed(text[at : at + size])
        one.close()
        best = min(best, time.process_time() - began)
    return best / len(text) * 1e9


def main() -> None:
    print(
        "| text | " + " | ".join(f"pieces of {size}" if size < LENGTH else "whole" for size in PIECES) + " |"
    )
    print("|" + " --- |" * (len(PIECES) + 1))
    for name, text in TEXTS.items():
        print(f"| {name} | " + " | ".join(f"{cost(text[:LENGTH], size):,.0f}" for size in PIECES) + " |")


if __name__ == "__main__":
    main()
