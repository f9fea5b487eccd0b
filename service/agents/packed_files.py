"""Files of an agent's folder as one text, and back into a folder that nobody edits."""

from __future__ import annotations

import hmac
import os
import shutil
import time
import zlib
from base64 import b64decode, b64encode
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from secrets import token_hex

import orjson

from service.agents.files import counted, version_of
from service.text.packed import packed, unpacked

MAX_BYTES = 8 * 1024 * 1024  # of all files of a version
MAX_FILES = 2_000
UNUSED_SECONDS = 24 * 3600
Files = Mapping[str, bytes]  # by name, relative to the folder


class BadFiles(Exception):
    """Raised for files that cannot be a version. The message is for operators, and goes on from a name."""


def read(folder: Path) -> dict[str, bytes]:
    """Read the counted files of a folder. Raises `BadFiles`, and `OSError`."""
    paths = counted(folder)
    if len(paths) > MAX_FILES:
        raise BadFiles(f"has more than {MAX_FILES} files")
    if sum(path.stat().st_size for path in paths) > MAX_BYTES:
        raise BadFiles(f"has more than {MAX_BYTES} bytes")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def pack(files: Files) -> str:
    """Pack files. Raises `BadFiles` for a name that is not UTF-8."""
    try:
        return packed(orjson.dumps({name: b64encode(data).decode() for name, data in files.items()}))
    except TypeError:
        raise BadFiles("has a file whose name is not UTF-8") from None


def unpack(text: str) -> dict[str, bytes]:
    """Return the files of a version. Raises `BadFiles`."""
    try:
        files = {name: b64decode(data) for name, data in orjson.loads(unpacked(text)).items()}
    except (ValueError, zlib.error, AttributeError, TypeError):
        raise BadFiles("cannot be unpacked") from None
    for name in files:
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or not parts.parts:
            raise BadFiles("has a file outside of its folder")
    return files


def signature(secret: str, agent: str, version: str, text: str) -> str:
    """Sign a packed version: its files are code that this service executes."""
    message = "\n".join(("slipway agent version", agent, version, text))
    return hmac.digest(secret.encode(), message.encode(), "sha256").hex()


def folder_with(files: Files, place: Path, agent: str, version: str) -> Path:
    """Return a folder in `place` with these files and no others, made where there is none.

    Raises `BadFiles` where its hash is not `version`, and `OSError`.
    """
    folder = place / agent / version / agent  # the loader takes the agent's id from the folder's name
    if not _has(folder, files, version):
        own = place / agent / f".{os.getpid()}-{version}"
        _write(own / agent, files)
        shutil.rmtree(folder.parent, ignore_errors=True)
        try:
            own.rename(folder.parent)
        except OSError:  # another process has made it
            shutil.rmtree(own, ignore_errors=True)
    if not _has(folder, files, version):
        raise BadFiles("does not have the files that were published")
    return folder


def prune(place: Path, agent: str, used: Collection[str]) -> None:
    """Delete folders of an agent's versions that nobody has used for `UNUSED_SECONDS`. `used`: versions in use now.

    Replicas may share the place: a folder is out of their way before its files go.
    """
    for folder in list((place / agent).glob("*")) + list((place / agent).glob(".*")):
        try:
            if folder.name in used:
                os.utime(folder)
            elif folder.stat().st_mtime < time.time() - UNUSED_SECONDS:
                gone = folder.rename(folder.with_name(f".{token_hex(8)}-gone"))
                shutil.rmtree(gone, ignore_errors=True)
        except OSError:  # another process was faster
            continue


def _has(folder: Path, files: Files, version: str) -> bool:
    try:
        same = all((folder / name).read_bytes() == data for name, data in files.items())
        return same and version_of(folder) == version
    except OSError:
        return False


def _write(folder: Path, files: Files) -> None:
    shutil.rmtree(folder.parent, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o400)
