"""Memory: notes that agents keep about the caller, or about one of their end users."""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated

from flask import Blueprint, Response, request
from pydantic import AfterValidator, Field

from service import errors, memory
from service.store.memory import Holder
from service.tools.sources.memory import KEY, MAX_TEXT
from service.web.admission import guard
from service.web.current import current_caller, services
from service.web.idempotency import once
from service.web.openapi import api
from service.web.paging import PAGE, page, page_arguments, refuse_other_parameters
from service.web.schemas import Body, EndUser, Page, Shape, json_response, no_nul
from service.web.validation import parse, validate

blueprint = Blueprint("memory", __name__)
ABOUT = {
    "end_user": {
        "type": "string",
        "description": "Notes about this end user, by the caller's own name for them",
    },
    "key_id": {
        "type": "string",
        "description": "API key whose end user it is; by default the one of the request",
    },
}


class NoteBody(Body):
    text: Annotated[str, Field(min_length=1, max_length=MAX_TEXT), AfterValidator(no_nul)]


class About(Body):
    """Query parameters that say whom notes are about."""

    end_user: EndUser | None = None
    key_id: Annotated[str, Field(pattern=r"^key_[0-9a-z]{26}$")] | None = None


class NoteItem(Shape):
    """Note in a list. `agent`: that has written it, null: the caller.

    `untrusted`: sources of untrusted text in the run that has written it. Agents that read it hold it as such.
    """

    key: str
    agent: str | None
    untrusted: list[str]
    created_at: str
    updated_at: str


class NoteView(NoteItem):
    text: str


class NotePage(Page[NoteItem]): ...


@blueprint.get("/v1/memory")
@api(
    "List notes about the caller by key, without their texts",
    returns={200: NotePage},
    errors=[errors.Invalid, errors.Forbidden],
    query={**PAGE, **ABOUT},
)
@guard()
def list_notes() -> Response:
    limit, after = page_arguments()
    found = services().memory.list(current_caller(), _holder())
    rest = [memory.item(row) for row in found if after is None or row["key"] > after]
    return json_response(page(rest, limit, "key"))


@blueprint.get("/v1/memory/<note_key>")
@api(
    "Get a note about the caller",
    returns={200: NoteView},
    errors=[errors.NotFound, errors.Invalid, errors.Forbidden],
    query=ABOUT,
)
@guard()
def get_note(note_key: str) -> Response:
    refuse_other_parameters()
    return json_response(memory.public(services().memory.get(current_caller(), _holder(), note_key)))


@blueprint.put("/v1/memory/<note_key>")
@api(
    "Write a note about the caller; replaces the one with this key",
    body=NoteBody,
    returns={200: NoteView},
    errors=[
        errors.NotFound,
        errors.Invalid,
        errors.Forbidden,
        errors.TooMany,
        errors.IdempotencyMismatch,
    ],
    query=ABOUT,
    headers=["Idempotency-Replayed"],
)
@guard()
def put_note(note_key: str) -> Response:
    refuse_other_parameters()
    _check_key(note_key)
    put = partial(services().memory.put, caller=current_caller(), holder=_holder(), key=note_key)
    text = parse(NoteBody).text
    return once(lambda tx: memory.public(put(tx, text=text)), 200)


@blueprint.delete("/v1/memory/<note_key>")
@api(
    "Delete a note about the caller",
    returns={204: None},
    errors=[errors.NotFound, errors.Invalid, errors.Forbidden, errors.IdempotencyMismatch],
    query=ABOUT,
    headers=["Idempotency-Replayed"],
)
@guard()
def delete_note(note_key: str) -> Response:
    refuse_other_parameters()
    delete = partial(services().memory.delete, caller=current_caller(), holder=_holder(), key=note_key)
    return once(delete, 204, bodiless=True)


def _holder() -> Holder:
    """Return whom the request is about. Raises `Invalid` and `Forbidden`."""
    asked = validate(About, {name: request.args[name] for name in ABOUT if name in request.args})
    return memory.holder_of(current_caller(), asked.end_user, asked.key_id)


def _check_key(note_key: str) -> None:
    """Raise `Invalid` for a key that no note can have."""
    if not re.fullmatch(KEY, note_key):
        detail = "The key of a note is 1 to 64 of A-Z a-z 0-9 . _ -, and begins with a letter or digit."
        raise errors.fault("/note_key", detail, detail)
