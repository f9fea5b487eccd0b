"""`.env` beside the code: settings of one machine. A variable of the environment wins over a line of the file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

ENV_FILE = Path(__file__).absolute().parent.parent / ".env"
SKIP = "FLASK_SKIP_DOTENV"  # Flask's own word: whoever sets it wants no `.env`, and the tests do


def over(environ: Mapping[str, str], faults: dict[str, str], path: Path = ENV_FILE) -> dict[str, str]:
    """`environ`, and below it what `path` says; what is wrong with the file goes into `faults`.

    A setting that `environ` names, itself or its file (NAME_FILE), is not looked for in the file at all.
    """
    if environ.get(SKIP, "").lower() not in ("", "0", "false", "no") or not path.is_file():
        return dict(environ)
    below = {}
    for name, value in _read(path, faults).items():
        setting = name.removesuffix("_FILE")
        if setting not in environ and f"{setting}_FILE" not in environ:
            below[name] = value
    return {**below, **environ}


def _read(path: Path, faults: dict[str, str]) -> dict[str, str]:
    """The lines of the file, as python-dotenv reads them, without those that are no NAME=value."""
    # Only here: containers and services of systemd have no such file.
    from dotenv import dotenv_values
    from dotenv.parser import parse_stream

    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        faults[path.name] = f"cannot be read: {os.strerror(error.errno or 0)}"
        return {}
    except UnicodeError:
        faults[path.name] = "cannot be read: is not UTF-8"
        return {}
    good = []
    for binding in parse_stream(StringIO(text)):
        if binding.error or (binding.key is not None and binding.value is None):
            faults[f"{path.name}:{_line(binding.original)}"] = "is not NAME=value"
        else:
            good.append(binding.original.string)
    values = dotenv_values(stream=StringIO("".join(good)))
    return {name: value or "" for name, value in values.items()}


def _line(original: Any) -> int:
    """The number of a line; python-dotenv counts empty lines before it as part of it."""
    text: str = original.string
    return int(original.line) + text[: len(text) - len(text.lstrip())].count("\n")
