"""Table of all errors: for the docs, and for answers that are kept by their code."""

from __future__ import annotations

from functools import cache

from service.errors import ModelKeyRefused, ModelRejected, PriceUnknown, SessionBusy, SlipwayError

_RETRYABLE = (408, 429, 502, 503, 504)


def is_retryable(error: type[SlipwayError]) -> bool:
    """Check whether the same request may succeed later, unchanged."""
    if issubclass(error, ModelRejected | ModelKeyRefused | PriceUnknown):
        return False
    return error.status in _RETRYABLE or error is SessionBusy


@cache
def _by_code() -> dict[str, type[SlipwayError]]:
    return {error.code: error for error in all_errors()}


def error_class(code: str) -> type[SlipwayError]:
    """Find the class of a kept problem by its code; the root for one that this release does not know."""
    return _by_code().get(code, SlipwayError)


def all_errors() -> list[type[SlipwayError]]:
    """List every class of the tree, for the error table in the docs and its test."""
    found: list[type[SlipwayError]] = []
    todo = [SlipwayError]
    while todo:
        cls = todo.pop()
        found.append(cls)
        todo.extend(cls.__subclasses__())
    return sorted(found, key=lambda cls: (cls.status, cls.code))
