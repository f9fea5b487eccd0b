"""Files of an agent's folder: selection, content version, and a cheap change detector."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

EVALS = "evals.yaml"
BASELINE = "evals.baseline.json"  # results of evals, which name the version that they are of
CHUNK = 1 << 20  # bytes hashed at a time: a file may be larger than memory
SETTLED_SECONDS = 0.1  # a file system may give writes a few milliseconds apart the same time
# Files left behind by editors, patch and Python.
LEFTOVER = re.compile(
    r".*~|#.*#|__pycache__.*|.*\.(?:bak|orig|rej|tmp|py[co]|sw[a-p])|.*___jb_(?:tmp|old)___"
)


class Stamp(NamedTuple):
    """Name, inode, size, mtime and ctime (ns) of every counted file.

    Not `settled`: a file was written just now, so a later write may yield the same stamp.
    """

    files: tuple[tuple[str, int, int, int, int], ...]
    settled: bool


def folders_of(agents_dir: Path) -> list[Path]:
    """List agents' folders by name, without those that begin with `.` or `_`."""
    try:
        found = [entry.name for entry in os.scandir(agents_dir) if entry.is_dir()]
    except OSError:
        return []
    return [agents_dir / name for name in sorted(found) if not name.startswith((".", "_"))]


def version_of(folder: Path) -> str:
    """Hash names and contents of the counted files, sorted, to 12 hex digits of SHA-256."""
    return _hashed(folder, counted(folder))


def parts_of(folder: Path) -> dict[str, str]:
    """Hash what decides about answers, by file or folder at the top, such as `prompt.md` and `knowledge`: no evals."""
    parts: dict[str, list[Path]] = {}
    for path in counted(folder):
        parts.setdefault(path.relative_to(folder).parts[0], []).append(path)
    return {name: _hashed(folder, paths) for name, paths in sorted(parts.items()) if name != EVALS}


def _hashed(folder: Path, paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        name = os.fsencode(path.relative_to(folder).as_posix())
        try:
            with path.open("rb") as file:
                digest.update(b"%b\0%d\0" % (name, os.fstat(file.fileno()).st_size))
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
        except OSError:  # reported by the loader if the file is needed
            digest.update(b"%b\0unreadable\0" % name)
    return digest.hexdigest()[:12]


def counted(folder: Path) -> list[Path]:
    """List the counted files in an order independent of the file system."""
    return sorted(Path(name) for name, _ in _counted(folder))


def stamp_of(folder: Path) -> Stamp:
    """Build a stamp that changes with every edit, without reading files: a few microseconds per file."""
    now = time.time()
    found = [(name, about) for name, about in _counted(folder)]
    files = [(name, at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns) for name, at in found]
    newest = max((about.st_ctime for _, about in found), default=0.0)
    return Stamp(tuple(sorted(files)), settled=newest < now - SETTLED_SECONDS)


def links_out(folder: Path) -> Iterator[Path]:
    """Find links in the folder that lead out of it."""
    inside = os.path.realpath(folder) + os.sep
    for root, folders, names in _walk(folder):
        for path in (Path(root, name) for name in sorted([*folders, *names])):
            if path.is_symlink() and not os.path.realpath(path).startswith(inside):
                yield path


def _counted(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield regular files that are neither hidden nor leftovers, unordered. Follows links to files."""
    for root, _, names in _walk(folder):
        for name in names:
            path = os.path.join(root, name)
            try:
                about = os.stat(path)
            except OSError:  # a broken link, or a file just deleted
                continue
            if stat.S_ISREG(about.st_mode):
                yield path, about


def _walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if _counts(name)]
        yield root, folders, [name for name in names if _counts(name)]


def _counts(name: str) -> bool:
    return not name.startswith(".") and not is_leftover(name) and name != BASELINE


def is_leftover(name: str) -> bool:
    return LEFTOVER.fullmatch(name) is not None
