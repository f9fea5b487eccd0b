"""Logs: one JSON object per line (readable text in a terminal), with who and what is being served on each.

A line's `event` is its message. `bind` adds fields to every later line of the same thread. Secrets never
leave: fields with a telling name and values that look like a key or a token are blanked as a line is written.

DEBUG is for Slipway's own lines, which tell no content. Libraries tell at that level what they send and get: prompts,
answers and keys. Theirs are dropped, whatever level a library gives its loggers.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, Literal, TextIO

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.orjson import OrjsonFormatter

from service.types import rfc3339_second

REDACTED = "[redacted]"
_SECRET_NAMES = frozenset(
    {
        "authorization",
        "cookie",
        "password",
        "token",
        "access_token",
        "refresh_token",
        "api_key",
        "x-api-key",
        "secret",
    }
)
# Our keys, provider keys, and JWTs (three base64url parts, the first being an encoded `{"`).
_SECRET_VALUES = re.compile(
    r"\bslp_[A-Za-z0-9_-]{8,}|\bsk-[A-Za-z0-9_-]{8,}|\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"
)
_RESERVED = frozenset(RESERVED_ATTRS) | {"color_message"}
OWN = ("slipway", "agent_tools")  # how our loggers begin, and those of agents' own tools by their modules
_QUIETER = {
    "anthropic": "WARNING",  # with ANTHROPIC_LOG it would write bodies by a handler of its own
    "gunicorn.access": "CRITICAL",  # our own `request` line says more
    "flask-limiter": "WARNING",  # its line names who was limited
    "alembic": "WARNING",
    "httpx2": "WARNING",  # a line for every request; `llm_call` says more
}
_PLAIN = (str, int, float, bool, type(None))  # what nearly all fields are, and no mapping
_fields: ContextVar[Mapping[str, Any]] = ContextVar("log_fields", default={})  # noqa: B039 - never mutated


def bind(**fields: Any) -> None:
    """From now on every line of this thread carries these fields, until `clear`."""
    _fields.set({**_fields.get(), **fields})


def clear(**fields: Any) -> None:
    """Forget all bound fields, and bind these: a thread serves one request after another."""
    _fields.set(fields)


@contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """Bind fields for the length of a block."""
    before = _fields.get()
    _fields.set({**before, **fields})
    try:
        yield
    finally:
        _fields.set(before)


def event(logger: logging.Logger, name: str, **fields: Any) -> None:
    """One line at INFO: what happened, and its measures. Never prompts or answers."""
    if logger.isEnabledFor(logging.INFO):
        logger.info(name, extra=fields)


def configure(log_format: Literal["auto", "json", "text"], level: str) -> None:
    """Set up the root logger and Gunicorn's, to standard error. May be called again, as after a reload."""
    theirs = max(logging.getLevelNamesMapping()[level], logging.INFO)
    text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    handler = _Stderr()
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    handler.addFilter(_without_details_of_libraries)
    root, gunicorn = logging.getLogger(), logging.getLogger("gunicorn.error")
    root.handlers = [handler, *(other for other in root.handlers if not isinstance(other, _Stderr))]
    root.setLevel(theirs)
    for name in OWN:
        logging.getLogger(name).setLevel(level)
    logging.getLogger("slipway.request").setLevel(logging.INFO)  # the access log, whatever the level
    gunicorn.handlers, gunicorn.propagate = [handler], False
    gunicorn.setLevel(theirs)
    # What no line of ours tells is not found out for it: https://docs.python.org/3/howto/logging.html#optimization
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    for name, least in _QUIETER.items():
        logging.getLogger(name).setLevel(least)


def _without_details_of_libraries(record: logging.LogRecord) -> bool:
    """Filter of what is less than INFO and not ours."""
    return record.levelno >= logging.INFO or record.name.partition(".")[0] in OWN


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to what standard error is at the moment, and not to what it was at the start."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


class JsonFormatter(OrjsonFormatter):
    """`time`, `level`, `event`, `logger`, the bound fields, then the line's own."""

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        log_data["time"] = _time(record)
        log_data["level"] = record.levelname
        log_data["event"] = record.message
        log_data["logger"] = record.name
        log_data.update(_fields.get())
        log_data.update(_extras(record))
        log_data.update(message_dict)

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        return scrub(super().jsonify_log_record(log_data))


class TextFormatter(logging.Formatter):
    """`12:00:01.123 INFO  request method=GET status=200`, coloured in a terminal."""

    _COLOURS: ClassVar = {"WARNING": "33", "ERROR": "31", "CRITICAL": "31;1"}

    def format(self, record: logging.LogRecord) -> str:
        fields = {**_fields.get(), **_extras(record)}
        pairs = "".join(f" {key}={value}" for key, value in fields.items())
        line = f"{_time(record)[11:23]} {record.levelname:<7} {record.getMessage()}{pairs}"
        colour = self._COLOURS.get(record.levelname)
        if colour and sys.stderr.isatty():
            line = f"\x1b[{colour}m{line}\x1b[0m"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return scrub(line)


def scrub(line: str) -> str:
    """`line` with everything that looks like a key or a token blanked."""
    if "slp_" in line or "sk-" in line or "eyJ" in line:  # nearly every line has none: no regex for those
        return _SECRET_VALUES.sub(REDACTED, line)
    return line


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    found = {key: value for key, value in record.__dict__.items() if key not in _RESERVED}
    for key, value in found.items():
        if key.lower() in _SECRET_NAMES:
            found[key] = REDACTED
        elif not isinstance(value, _PLAIN) and isinstance(value, Mapping):
            found[key] = _blanked(value)
    return found


def _blanked(value: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        str(key): _blanked(inner) if isinstance(inner, Mapping) else inner
        for key, inner in value.items()
        if str(key).lower() not in _SECRET_NAMES
    }


def _time(record: logging.LogRecord) -> str:
    return f"{rfc3339_second(int(record.created))}.{int(record.msecs):03d}Z"
