"""Matches of detectors, and the window of text that they look at."""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple


class Match(NamedTuple):
    """Match of a kind. `tail`: characters that it goes on with, however many; `until`: the end of those."""

    kind: str
    start: int
    end: int
    tail: re.Pattern[str] | None = None
    until: re.Pattern[str] | None = None


class Window(NamedTuple):
    """Part of a text in plain form.

    Detectors match at `start` and read what stands before, as context. `group` is the end of what may belong to one
    match; what follows is context up to `end`. `final`: nothing may follow `end`. `is_cut`: the text may go on there,
    and is not read any further, whether it has arrived or not. `column`: the heading of a table's column at `start`.
    """

    text: str
    start: int
    group: int
    end: int
    final: bool
    is_cut: bool
    column: str = ""


class Wait(Enum):
    """Answer of a detector that needs more text to decide."""

    WAIT = "wait"


WAIT = Wait.WAIT
Answer = Match | Wait | None
