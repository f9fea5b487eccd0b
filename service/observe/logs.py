"""Structured logs: one JSON object per line (text in a terminal), with context fields and redacted secrets.

A line's `event` is its message, its fields are `extra`: never prompts or answers. `bind` adds fields to every later
line of the same thread. Fields with the name of a secret, and values that look like a key or a token, are redacted as a
line is written.

DEBUG lines are Slipway's own only, which hold no content. Libraries log prompts, answers and keys at that level: their
lines are dropped, whatever level a library sets for its loggers.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, Literal

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.orjson import OrjsonFormatter

from service.observe import tracing
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
# Slipway's keys, provider keys, and JWTs (three base64url parts, the first being an encoded `{"`).
_SECRET_VALUES = re.compile(
    r"\bslp_[A-Za-z0-9_-]{8,}|\bsk-[A-Za-z0-9_-]{8,}|\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"
)
_RESERVED = frozenset(RESERVED_ATTRS) | {"color_message"}
OWN = (
    "slipway",
    "agent_tools",
    "agent_code",
)  # prefixes of Slipway's loggers, and of those in agents' modules
_QUIETER = {
    "anthropic": "WARNING",  # with ANTHROPIC_LOG it would write bodies with its own handler
    "gunicorn.access": "CRITICAL",  # replaced by the `request` line
    "flask-limiter": "WARNING",  # its line holds the key that was limited
    "alembic": "WARNING",
    "psycopg": "ERROR",  # its warnings name the server and its user, and echo an error that is raised anyway
    "websockets": "WARNING",
    "opentelemetry": "CRITICAL",  # replaced by `traces_not_sent`
    "httpx2": "WARNING",  # a line for every request; replaced by `llm_call`
}
_NOWHERE: Mapping[str, str] = {}
_PLAIN = {str, int, float, bool, type(None)}  # types of nearly all fields: checked before the slower Mapping
_fields: ContextVar[Mapping[str, Any]] = ContextVar("log_fields", default={})  # noqa: B039 - never mutated


def bind(**fields: Any) -> None:
    """Add fields to every later line of this thread, until `clear`."""
    _fields.set({**_fields.get(), **fields})


def clear(**fields: Any) -> None:
    """Replace all bound fields by these: a thread serves one request after another."""
    _fields.set(fields)


@contextmanager
def bound(**fields: Any) -> Iterator[None]:
    before = _fields.get()
    _fields.set({**before, **fields})
    try:
        yield
    finally:
        _fields.set(before)


def configure(log_format: Literal["auto", "json", "text"], level: str) -> None:
    """Set up the root logger and Gunicorn's, to standard error. May be called again, as after a reload."""
    library_level = max(logging.getLevelNamesMapping()[level], logging.INFO)
    text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    handler = _Stderr()
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    handler.addFilter(_drop_library_debug)
    root, gunicorn = logging.getLogger(), logging.getLogger("gunicorn.error")
    root.handlers = [handler, *(other for other in root.handlers if not isinstance(other, _Stderr))]
    root.setLevel(library_level)
    for name in OWN:
        logging.getLogger(name).setLevel(level)
    logging.getLogger("slipway.request").setLevel(logging.INFO)  # the access log, whatever the level
    gunicorn.handlers, gunicorn.propagate = [handler], False
    gunicorn.setLevel(library_level)
    # Skip record attributes that are never printed: https://docs.python.org/3/howto/logging.html#optimization
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    for name, minimum in _QUIETER.items():
        logging.getLogger(name).setLevel(minimum)


def _drop_library_debug(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.INFO or record.name.partition(".")[0] in OWN


class _Stderr(logging.Handler):
    """Handler for the current `sys.stderr`, not the one at start."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            stream = sys.stderr
            stream.write(f"{self.format(record)}\n")
            stream.flush()
        except Exception:
            self.handleError(record)


class JsonFormatter(OrjsonFormatter):
    """Formats a record as one line of JSON: `time`, `level`, `event`, `logger`, the bound fields, then its own."""

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        log_data["time"] = _time(record)
        log_data["level"] = record.levelname
        log_data["event"] = record.message
        log_data["logger"] = record.name
        log_data.update(_fields.get())
        log_data.update(_place())
        log_data.update(_extras(record))
        log_data.update(message_dict)

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        try:
            return scrub(super().jsonify_log_record(log_data))
        except TypeError:  # half a surrogate pair, or an integer beyond 64 bits
            line = json.dumps(log_data, default=str, skipkeys=True, ensure_ascii=False)
            return scrub(line.encode(errors="replace").decode())


class TextFormatter(logging.Formatter):
    """Text line such as `12:00:01.123 INFO  request method=GET status=200`, coloured in a terminal."""

    _COLOURS: ClassVar = {"WARNING": "33", "ERROR": "31", "CRITICAL": "31;1"}

    def format(self, record: logging.LogRecord) -> str:
        fields = {**_fields.get(), **_place(), **_extras(record)}
        pairs = "".join(f" {key}={value}" for key, value in fields.items())
        line = f"{_time(record)[11:23]} {record.levelname:<7} {_one_line(record.getMessage() + pairs)}"
        colour = self._COLOURS.get(record.levelname)
        if colour and sys.stderr.isatty():
            line = f"\x1b[{colour}m{line}\x1b[0m"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return scrub(line)


def scrub(line: str) -> str:
    """Redact everything in `line` that looks like a key or a token."""
    if "slp_" in line or "sk-" in line or "eyJ" in line:  # a cheap test first: nearly every line has none
        return _SECRET_VALUES.sub(REDACTED, line)
    return line


def _one_line(text: str) -> str:
    """Escape line breaks and control characters, so that a value neither forges a line nor speaks to a terminal."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _place() -> Mapping[str, str]:
    """Return the current span, where tracing is on."""
    if (span := tracing.current()) is None:
        return _NOWHERE
    return {"trace_id": f"{span.context.trace_id:032x}", "span_id": f"{span.context.span_id:016x}"}


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    found = {key: value for key, value in record.__dict__.items() if key not in _RESERVED}
    for key, value in found.items():
        if key.lower() in _SECRET_NAMES:
            found[key] = REDACTED
        elif type(value) not in _PLAIN:
            found[key] = _redacted(value)
    return found


def _redacted(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_redacted(one) for one in value]
    if not isinstance(value, Mapping):
        return value
    items = ((str(key), inner) for key, inner in value.items())
    return {key: _redacted(inner) for key, inner in items if key.lower() not in _SECRET_NAMES}


def _time(record: logging.LogRecord) -> str:
    return f"{rfc3339_second(int(record.created))}.{int(record.msecs):03d}Z"
