"""Scopes of caps as text, such as `user:usr_…` or `end_user:key_…/name`.

An end user's name may have any printable character, `/` too: a scope is cut at its first `:` and its first `/`, a
window's id from its end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

DEFAULT_NAME = "*"  # of the cap for every end user of a key that has none of their own
_ID = "[0-9a-z]{26}"
_END_USER = "end_user:"
_SCOPE = re.compile(
    rf"service|workspace:wsp_{_ID}|user:usr_{_ID}|key:key_{_ID}|session:ses_{_ID}|agent:[a-z][a-z0-9_-]{{0,63}}"
    rf"|{_END_USER}key_{_ID}/.{{1,64}}",
    re.ASCII,
)
FORMS = "service, workspace:…, user:…, key:…, agent:…, session:… or end_user:key_…/name"


def is_scope(text: str) -> bool:
    """Return whether a text is the scope of a cap; its subject may not exist."""
    return _SCOPE.fullmatch(text) is not None and text.isprintable()


def of_end_user(key_id: str, name: str) -> str:
    return f"{_END_USER}{key_id}/{name}"


def end_user_of(scope: str) -> tuple[str, str] | None:
    """Return the key's id and the end user's name; None for a scope of another kind."""
    if not scope.startswith(_END_USER):
        return None
    key_id, _, name = scope.removeprefix(_END_USER).partition("/")
    return key_id, name


def is_default(scope: str) -> bool:
    """Return whether a cap on this scope is the default for the end users of a key."""
    found = end_user_of(scope)
    return found is not None and found[1] == DEFAULT_NAME


def default_of(scope: str) -> str | None:
    """Return the scope whose cap is the default for this one; None: there is no such scope."""
    found = end_user_of(scope)
    return None if found is None or found[1] == DEFAULT_NAME else of_end_user(found[0], DEFAULT_NAME)


def with_defaults(scopes: Sequence[str]) -> list[str]:
    """List scopes, and those whose caps are their defaults."""
    return [*scopes, *(shared for scope in scopes if (shared := default_of(scope)) is not None)]


def subject_of(scope: str) -> tuple[str, str]:
    """Return kind and id of what has to exist for a cap on this scope: of an end user, the key."""
    found = end_user_of(scope)
    kind, _, name = scope.partition(":")
    return (kind, name) if found is None else ("key", found[0])
