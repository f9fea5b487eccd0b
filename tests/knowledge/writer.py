"""A process that adds and indexes documents: `python -m tests.knowledge.writer URL LOG ROUND`. Killed by its test.

It notes in the file LOG what it begins, and what it has been told is done.
"""

from __future__ import annotations

import os
import sys
from itertools import count

from service.knowledge import documents, indexing
from tests.knowledge.house import DeterministicEmbedder, House

NAMES = [f"document{letter}.md" for letter in "abcd"]
PARTS = 12


def text_of(name: str, version: int) -> str:
    return "\n\n".join(f"# Part {n}\n\nPart {n} of {name} is of version {version}." for n in range(PARTS))


def main() -> None:
    url, path, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
    house = House(url, DeterministicEmbedder(f"model{number % 2}", 64), create=False)
    log = os.open(path, os.O_WRONLY | os.O_APPEND)
    for version in count(number * 10_000):
        name = NAMES[version % len(NAMES)]
        os.write(log, f"begun {name} {version}\n".encode())
        house.add(name, text_of(name, version))
        os.write(log, f"told {name} {version}\n".encode())
        if version % 3 == 2:
            documents.RULES = indexing.RULES = version  # as after an upgrade: all are cut again
            index(house)


def index(house: House) -> None:
    """Do what `flask knowledge index` does."""
    for scope in house.indexing.scopes():
        house.indexing.cut_again(scope, lambda done: None)
    if house.indexing.by_meaning:
        house.index()


if __name__ == "__main__":
    main()
