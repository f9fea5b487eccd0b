"""Calls of the API as values: what to send, and how to read the answer. No input or output here."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from slipway_client.errors import BadArgument

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
PART = re.compile(r"[A-Za-z0-9_.:~-]{1,200}")


@dataclass(frozen=True, slots=True)
class Call(Generic[T_co]):
    """One call. `read` turns parsed JSON into its result; `slow`: the answer may take as long as a run."""

    method: str
    path: str
    read: Callable[[Any], T_co]
    body: Mapping[str, Any] | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    slow: bool = False

    def with_headers(self, **headers: str) -> Call[T_co]:
        """Return the call with more headers; `_` in a name stands for `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return replace(self, headers={**self.headers, **named})


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    items: list[T]
    next_cursor: str | None


def get(path: str, read: Callable[[Any], T], **query: object) -> Call[T]:
    """Build a GET; arguments that are None are left out."""
    return Call(
        "GET", path, read, query={name: str(value) for name, value in query.items() if value is not None}
    )


def post(
    path: str,
    read: Callable[[Any], T],
    body: Mapping[str, Any] | None,
    key: str | None = None,
    *,
    slow: bool = False,
) -> Call[T]:
    """Build a POST with an `Idempotency-Key`: `key`, or one of its own, so that a retry is the same request."""
    return Call("POST", path, read, body, headers={"Idempotency-Key": key or uuid.uuid4().hex}, slow=slow)


def page_of(read: Callable[[Any], T]) -> Callable[[Any], Page[T]]:
    """Return the reader of one page of a list."""
    return lambda body: Page([read(item) for item in body["data"]], body.get("next_cursor"))


def nothing(body: Any) -> None:
    """Read an answer without a body."""


def path_of(*parts: str) -> str:
    """Join parts to a path under `/v1`. Raises `BadArgument` for a part that could lead to another route."""
    for part in parts:
        if not PART.fullmatch(part) or part in (".", ".."):
            raise BadArgument(f"{part!r} is no id or name.")
    return "/v1/" + "/".join(parts)


def present(**fields: Any) -> dict[str, Any]:
    """Return the fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}
