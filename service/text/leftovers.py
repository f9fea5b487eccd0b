"""Names of files that are no content of a folder: hidden ones, and those left behind by editors, patch and Python."""

from __future__ import annotations

import re

_LEFTOVER = re.compile(
    r".*~|#.*#|__pycache__.*|.*\.(?:bak|orig|rej|tmp|py[co]|sw[a-p])|.*___jb_(?:tmp|old)___"
)


def counts(name: str) -> bool:
    """Return whether a file or folder of this name is content."""
    return not name.startswith(".") and not is_leftover(name)


def is_leftover(name: str) -> bool:
    return _LEFTOVER.fullmatch(name) is not None
