"""Validation: a body as a typed model, and each of its faults as a JSON pointer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from service.errors import FieldFault, Invalid, NotFound, fault
from service.text import exact_json
from service.web.body import AS_TEXT, MAX_BODY, pointer, raw_json
from service.web.current import Request

M = TypeVar("M", bound=BaseModel)
MAX_NAME = 128  # characters of an id, a name or a scope in a path
MAX_FIELDS = 64  # fields of a body; unknown ones become errors
# Faults of a field that may be text or a list: not told where the other branch has told of something in it.
BRANCHES = ("string_type", "list_type")
NO_FIELD = "There is no such field"
MAX_FAULTS = 50  # faults reported in one response
# Pydantic's words for a part whose kind cannot be told, which quote the value; `tags` are those that it may have.
_KIND = re.compile(
    r"Unable to extract tag using discriminator '(?P<absent>[a-z_]+)'"
    r"|Input tag '.*' found using '(?P<name>[a-z_]+)' does not match any of the expected tags: (?P<tags>.*)",
    re.DOTALL,
)


def refuse_impossible(request: Request) -> None:
    """Reject NUL characters, which PostgreSQL does not accept, and names in a path that are too long.

    Called before every request. Raises `NotFound` and `Invalid`.
    """
    if "\x00" in request.path:
        raise NotFound()
    for name in (request.view_args or {}).values():
        if len(str(name)) > MAX_NAME:
            raise NotFound()
    query = request.query_string
    if b"%00" in query or b"\x00" in query:
        raise Invalid("The query must not contain a NUL character.")


def parse(model: type[M], *, most: int = MAX_BODY, texts: Sequence[str] = AS_TEXT) -> M:
    """Parse the request's body into a model. Raises as `raw_json`, and `Invalid` with a pointer to each fault."""
    return validate(model, raw_json(most), texts=texts)


def validate(model: type[M], value: Any, *, texts: Sequence[str] = AS_TEXT) -> M:
    """Validate `value`, whose fields `texts` become their JSON text. Raises `Invalid` with a pointer to each fault.

    Validates its JSON text: pydantic is then strict about JSON's types, and still reads a date from a string.
    """
    if isinstance(value, dict) and len(value) > MAX_FIELDS:
        raise fault("", f"must not have more than {MAX_FIELDS} fields")
    try:
        return model.model_validate_json(exact_json.dumps(_with_texts(value, texts)))
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False, include_context=False)
        raise Invalid("The request does not fit; see `errors`.", errors=located(details, value)) from None


def _with_texts(value: Any, names: Sequence[str]) -> Any:
    """Replace fields that are stored as JSON text by that text."""
    if not isinstance(value, dict) or value.keys().isdisjoint(names):
        return value
    texts = {name: exact_json.dumps(value[name]).decode() for name in names if value.get(name) is not None}
    return {**value, **texts}


def located(details: Sequence[ErrorDetails], value: Any, within: str = "") -> list[FieldFault]:
    """Convert pydantic's details to JSON pointers into `value`, which is never quoted: it may be a secret.

    `within` is the pointer to `value` itself.
    """
    faults = [(_fault(one, value, within), one["type"]) for one in details[:MAX_FAULTS]]
    told = [fault["pointer"] for fault, kind in faults if kind not in BRANCHES]
    return [
        fault
        for fault, kind in faults
        if kind not in BRANCHES or not any(f"{one}/".startswith(f"{fault['pointer']}/") for one in told)
    ]


def _fault(told: ErrorDetails, value: Any, within: str) -> FieldFault:
    where = within + _pointer(told["loc"], value, told["type"] == "missing")
    detail = told["msg"].removeprefix("Value error, ")
    if told["type"] == "extra_forbidden":
        detail = NO_FIELD
    elif kind := _KIND.fullmatch(detail):
        where += f"/{kind['absent'] or kind['name']}"
        detail = f"Input should be one of {kind['tags']}" if kind["tags"] else "Field required"
    return {"pointer": where, "detail": detail}


def _pointer(location: Sequence[int | str], value: Any, missing: bool) -> str:
    """Build the pointer to a fault, without pydantic's names of union branches, which do not occur in `value`."""
    parts: list[int | str] = []
    for number, part in enumerate(location, 1):
        known = (
            part in value if isinstance(value, dict) else isinstance(value, list) and isinstance(part, int)
        )
        if known:
            value = value[part]
        elif not (missing and number == len(location)):
            continue
        parts.append(part)
    return pointer(parts)


def check_override(limit_runs: str | None, until: int | None) -> None:
    """Validate an override of a limit. Raises `Invalid` for an end without one."""
    if until is not None and limit_runs is None:
        raise fault("/limit_runs_until", "needs a `limit_runs`")
