"""Sessions: create, list, search, read, export, rename, delete."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Annotated, Any, Literal

from flask import Blueprint, Response, request
from pydantic import AfterValidator, Field, model_validator

from service import errors, history, sessions
from service.errors import fault
from service.runs.result import shown
from service.store.database import Transaction
from service.store.visibility import AGENTS, allows
from service.text.numerals import whole_number
from service.web.admission import guard, no_agent, reading_place
from service.web.current import current_caller, services
from service.web.idempotency import once
from service.web.openapi import api
from service.web.paging import PAGE, choice_argument, no_cursor, page, page_arguments
from service.web.recheck import while_admitted
from service.web.schemas import Body, Metadata, Page, Shape, SourceShape, ToolShape, json_response, no_nul
from service.web.transcript import as_json, as_markdown
from service.web.validation import parse

blueprint = Blueprint("sessions", __name__)
CANCEL_WAIT = 5.0  # seconds a deletion waits for the cancellation of a running turn
MAX_SEARCH = 100  # characters
MARKDOWN = "text/markdown"
Title = Annotated[str, Field(max_length=256), AfterValidator(no_nul)]


class NewSession(Body):
    agent: Annotated[str, Field(min_length=1, max_length=64)]
    title: Title = ""
    metadata: Metadata | None = None


class SessionChange(Body):
    """Changes of a session; omitted fields keep their values."""

    title: Title | None = None
    metadata: Metadata | None = None

    @model_validator(mode="after")
    def _something(self) -> SessionChange:
        if not self.model_fields_set:
            raise ValueError("send `title`, `metadata` or both")
        if "title" in self.model_fields_set and self.title is None:
            raise ValueError("`title` is a text")
        return self


class SessionItem(Shape):
    """Session in a list, without its metadata and messages."""

    id: str
    user_id: str
    agent: str
    title: str
    created_at: str
    updated_at: str
    expires_at: str


class SessionView(SessionItem):
    metadata: dict[str, Any] | None


class MessageView(Shape):
    """Message of an ended turn, whose outcome is `status`; its predecessor in the branch is `parent_message_id`.

    `sources` and `tools` of a turn belong to its last message: the answer or, if there is none, the question.
    """

    id: str
    parent_message_id: str | None
    seq: int
    run_id: str
    role: Literal["user", "assistant"]
    content: str | list[dict[str, Any]]
    status: Literal["succeeded", "failed", "cancelled"]
    error_code: str | None
    sources: list[SourceShape]
    tools: list[ToolShape]
    created_at: str
    truncated: list[str] | None = None


class SessionWithMessages(SessionView):
    """Session with the last messages of all branches, oldest first; `next_cursor` leads to earlier ones."""

    messages: list[MessageView]
    next_cursor: str | None


class SessionExport(SessionView):
    """Session with all messages of all branches, oldest first."""

    messages: list[MessageView]


class SessionPage(Page[SessionItem]): ...


@blueprint.post("/v1/sessions")
@api(
    "Create a session with an agent",
    body=NewSession,
    returns={201: SessionView},
    errors=[errors.Invalid, errors.IdempotencyMismatch, errors.TooMany],
    headers=["Idempotency-Replayed"],
)
@guard()
def create_session() -> Response:
    body, caller = parse(NewSession), current_caller()
    if body.agent not in services().agents.agents or not allows(caller.scopes, AGENTS + body.agent):
        detail = no_agent(body.agent)
        raise fault("/agent", detail, detail)
    row = services().sessions.new(caller, body.agent, body.title, body.metadata)

    def work(tx: Transaction) -> dict[str, Any]:
        services().sessions.create(tx, row)
        return sessions.public(row)

    return once(work, 201)


@blueprint.get("/v1/sessions")
@api(
    "List own sessions, newest first; with `scope=all`, for operators, all users'. `q` searches titles",
    returns={200: SessionPage},
    errors=[errors.Invalid, errors.Forbidden],
    query={
        **PAGE,
        "scope": {"type": "string", "enum": ["own", "all"]},
        "q": {"type": "string", "minLength": 1, "maxLength": MAX_SEARCH},
    },
)
@guard()
def list_sessions() -> Response:
    limit, before = page_arguments()
    all_users = choice_argument("scope", ["own", "all"]) == "all"
    found, broke_off = services().sessions.page(
        current_caller(), _search_argument(), all_users=all_users, limit=limit + 1, before=before
    )
    shown_page = page([sessions.item(row) for row in found], limit)
    return json_response({**shown_page, "next_cursor": shown_page["next_cursor"] or broke_off})


@blueprint.get("/v1/sessions/<session_id>")
@api(
    "Get a session with its last messages: 100 by default, fewer if they are long",
    returns={200: SessionWithMessages},
    errors=[errors.NotFound, errors.Invalid],
    query=PAGE,
)
@guard()
def get_session(session_id: str) -> Response:
    limit, cursor = page_arguments(default=100)
    before = whole_number(cursor) if cursor else None
    if cursor and before is None:
        raise no_cursor()
    row = services().sessions.get(current_caller(), session_id)
    found = services().sessions.messages(session_id, limit=limit + 1, before=before)
    listing = page([history.public(message) for message in found], limit, key="seq")
    more = listing["next_cursor"]
    messages = {"messages": listing["data"][::-1], "next_cursor": None if more is None else str(more)}
    return json_response({**shown(sessions.public(row)), **messages})


@blueprint.get("/v1/sessions/<session_id>/export")
@api(
    "Export a whole session as JSON, or as Markdown with `Accept: text/markdown`",
    returns={200: SessionExport},
    errors=[errors.NotFound, errors.RateLimited, errors.Overloaded],
    also=[MARKDOWN],
)
@guard()
def export_session(session_id: str) -> Response:
    session = shown(sessions.public(services().sessions.get(current_caller(), session_id)))
    messages = while_admitted(map(history.public, services().sessions.transcript(session_id)))
    place = reading_place()
    if request.accept_mimetypes.best_match(["application/json", MARKDOWN]) == MARKDOWN:
        response = Response(as_markdown(session, messages), mimetype=MARKDOWN)
    else:
        response = Response(as_json(session, messages), mimetype="application/json")
    kind = "md" if response.mimetype == MARKDOWN else "json"
    response.headers["Content-Disposition"] = f'attachment; filename="{session_id}.{kind}"'
    response.call_on_close(place.give)
    return response


@blueprint.patch("/v1/sessions/<session_id>")
@api(
    "Change the title or metadata of a session",
    body=SessionChange,
    returns={200: SessionView},
    errors=[errors.NotFound, errors.Invalid],
)
@guard()
def change_session(session_id: str) -> Response:
    body = parse(SessionChange)
    row = services().sessions.get(current_caller(), session_id, own=True)
    services().sessions.change(row, body.model_dump(include=body.model_fields_set))
    row = services().sessions.get(current_caller(), session_id, own=True)
    return json_response(shown(sessions.public(row)))


@blueprint.delete("/v1/sessions/<session_id>")
@api(
    "Delete a session with its messages and runs; a turn in progress is cancelled",
    returns={204: None},
    errors=[errors.NotFound, errors.SessionBusy],
)
@guard()
def delete_session(session_id: str) -> Response:
    services().sessions.get(current_caller(), session_id, own=True)
    _cancel_turns(session_id)
    if not services().sessions.delete(session_id):
        with services().runs.bulkhead.take(current_caller().user_id):
            _delete_in_time(session_id)
    return Response(status=204)


def _search_argument() -> str | None:
    """Read `?q=`. Raises `Invalid`."""
    text = request.args.get("q")
    if text is not None and not 1 <= len(text) <= MAX_SEARCH:
        raise fault("/q", f"Send 1 to {MAX_SEARCH} characters.")
    return text


def _delete_in_time(session_id: str) -> None:
    """Delete a session once its turn is cancelled. Raises `SessionBusy` after `CANCEL_WAIT` seconds."""
    end = time.monotonic() + CANCEL_WAIT
    while not services().sessions.delete(session_id):
        if time.monotonic() > end:
            raise errors.SessionBusy("A turn is being cancelled; try again shortly.", retry_after=1)
        time.sleep(0.1)


def _cancel_turns(session_id: str) -> None:
    """Cancel the runs of a session before deleting them, so that their usage is billed."""
    for run_id in services().sessions.unfinished(session_id):
        with suppress(errors.RunFinished, errors.NotFound):
            services().runs.cancellation.cancel(services().runs.queries.get(run_id))
