"""Commands of ours that the pages show: those of shell blocks, and those that stand in a sentence."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^([ \t]*)```(?:sh|console)\n(.*?)^\1```$", re.M | re.S)
IN_A_SENTENCE = re.compile(r"`((?:\.venv/bin/)?(?:flask|make|alembic) [^`]+)`")
PROGRAM = re.compile(r"(?:\S*/)?(flask|make|python|celery|alembic|gunicorn)")


class Command(NamedTuple):
    """One command. `prefix` is what comes before it: another program that runs it."""

    page: str
    line: int
    words: tuple[str, ...]
    prefix: tuple[str, ...] = ()
    in_a_block: bool = True

    @property
    def program(self) -> str:
        return Path(self.words[0]).name

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {shlex.join(self.words)}"


@cache
def commands() -> tuple[Command, ...]:
    """In the order of the pages."""
    return tuple(command for page in PAGES for command in _of_page(page))


def of(*programs: str) -> list[Command]:
    return [command for command in commands() if command.program in programs]


def _of_page(page: Path) -> Iterator[Command]:
    name, text = str(page.relative_to(ROOT)), page.read_text()
    for block in BLOCK.finditer(text):
        first = text.count("\n", 0, block.start()) + 2
        for at, line in _lines(block[2]):
            for words in _simple(line):
                start = next((at for at, word in enumerate(words) if PROGRAM.fullmatch(word)), None)
                if start is not None:
                    yield Command(name, first + at, words[start:], words[:start])
    for said in IN_A_SENTENCE.finditer(text):
        words = tuple(shlex.split(said[1].replace("\n", " ")))
        yield Command(name, text.count("\n", 0, said.start()) + 1, words, in_a_block=False)


def _lines(block: str) -> Iterator[tuple[int, str]]:
    """Return the commands: all lines, or those after a prompt; a backslash continues a line."""
    prompted = re.search(r"^\s*\$ ", block, re.M) is not None
    whole, first = "", 0
    for at, line in enumerate(map(str.strip, block.splitlines())):
        if not whole:
            first = at
            if prompted and not line.startswith("$ "):
                continue
        whole += line.removeprefix("$ ").removesuffix("\\")
        if not line.endswith("\\"):
            yield first, whole
            whole = ""


def _simple(line: str) -> Iterator[tuple[str, ...]]:
    """The simple commands of a line, without what is set before them and where their output goes."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&()<>")
    lexer.whitespace_split = True
    words: list[str] = []
    try:
        found = list(lexer)
    except ValueError:  # a quotation over several lines: a program in another language
        return
    for word in [*found, ";"]:
        if set(word) <= set(";|&()<>"):
            if words:
                yield tuple(words)
            words = []
        elif words or not re.fullmatch(r"[A-Z_]+=.*", word, re.S):
            words.append(word)
