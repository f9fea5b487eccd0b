"""`.env` file beside the code: settings of one machine. Environment variables win over its lines."""

from __future__ import annotations

import os
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

ENV_FILE = Path(__file__).absolute().parent.parent / ".env"
SKIP = "FLASK_SKIP_DOTENV"  # Flask's own variable to ignore `.env`, which the tests set


def merge(environ: Mapping[str, str], faults: dict[str, str], path: Path = ENV_FILE) -> dict[str, str]:
    """Merge `environ` over the `.env` file at `path`; faults of the file are added to `faults`.

    A setting in `environ`, as NAME or NAME_FILE, hides both forms in the file.
    """
    if environ.get(SKIP, "").lower() not in ("", "0", "false", "no") or not path.is_file():
        return dict(environ)
    from_file = {}
    for name, value in _read(path, faults).items():
        setting = name.removesuffix("_FILE")
        if setting not in environ and f"{setting}_FILE" not in environ:
            from_file[name] = value
    return {**from_file, **environ}


def _read(path: Path, faults: dict[str, str]) -> dict[str, str]:
    """Parse the file with python-dotenv, skipping lines that are not NAME=value and recording them in `faults`."""
    # Imported here: containers and systemd services have no such file.
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
    """Return a binding's line number; python-dotenv counts preceding empty lines as part of it."""
    text: str = original.string
    return int(original.line) + text[: len(text) - len(text.lstrip())].count("\n")
