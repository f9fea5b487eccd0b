"""Resources that a caller makes, changes and deletes: sessions, schedules and notes; and their account."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Literal, TypedDict, Unpack

from slipway_client.account_models import Me, Note, NoteItem, Schedule
from slipway_client.calls import Call, Page, get, nothing, page_of, path_of, post, present
from slipway_client.endpoint import AsyncResource, Resource, SyncResource, endpoint, listing
from slipway_client.models import Session, SessionItem, SessionWithMessages


class _Account(Resource):
    @endpoint
    def me(self) -> Call[Me]:
        """Return the caller, with scopes and limits."""
        return get("/v1/auth/me", Me.parse)

    @endpoint
    def logout(self) -> Call[None]:
        """End the log-in at once, everywhere."""
        return Call("POST", "/v1/auth/logout", nothing)


class Account(_Account, SyncResource): ...


class AsyncAccount(_Account, AsyncResource): ...


class _Sessions(Resource):
    @endpoint
    def create(
        self, agent: str, title: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> Call[Session]:
        """Begin a conversation: its `id` is the `session_id` of its turns."""
        return post("/v1/sessions", Session.parse, present(agent=agent, title=title, metadata=metadata))

    @listing
    def list(self, q: str | None = None) -> Call[Page[SessionItem]]:
        """Iterate over own sessions, newest first; `q` is looked for in the titles."""
        return get("/v1/sessions", page_of(SessionItem.parse), limit=100, q=q)

    @endpoint
    def get(self, session_id: str, cursor: str | None = None) -> Call[SessionWithMessages]:
        """Return a session with its last messages; `cursor` is the `next_cursor` of the answer before."""
        return get(path_of("sessions", session_id), SessionWithMessages.parse, cursor=cursor)

    @endpoint
    def update(
        self, session_id: str, title: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> Call[Session]:
        """Change the title or the metadata."""
        changes = present(title=title, metadata=metadata)
        return Call("PATCH", path_of("sessions", session_id), Session.parse, body=changes)

    @endpoint
    def delete(self, session_id: str) -> Call[None]:
        """Delete a session with its messages and runs."""
        return Call("DELETE", path_of("sessions", session_id), nothing)


class Sessions(_Sessions, SyncResource): ...


class AsyncSessions(_Sessions, AsyncResource): ...


class ScheduleOptions(TypedDict, total=False):
    """Optional fields of a schedule."""

    timezone: str
    missed: Literal["skip", "once", "all"]
    session_id: str
    cap_usd: str
    enabled: bool


class ScheduleChange(ScheduleOptions, total=False):
    """Fields of a schedule to change."""

    input: str
    cron: str


class _Schedules(Resource):
    @endpoint
    def create(self, agent: str, input: str, cron: str, **options: Unpack[ScheduleOptions]) -> Call[Schedule]:
        """Have an agent run by `cron` in `timezone`; `missed` decides about slots that passed while nothing ran."""
        return post(
            "/v1/schedules", Schedule.parse, {"agent": agent, "input": input, "cron": cron, **options}
        )

    @listing
    def list(self) -> Call[Page[Schedule]]:
        """Iterate over own schedules."""
        return get("/v1/schedules", page_of(Schedule.parse), limit=100)

    @endpoint
    def get(self, schedule_id: str) -> Call[Schedule]:
        """Return one schedule."""
        return get(path_of("schedules", schedule_id), Schedule.parse)

    @endpoint
    def update(self, schedule_id: str, **changes: Unpack[ScheduleChange]) -> Call[Schedule]:
        """Change a schedule; `enabled=False` pauses it."""
        return Call("PATCH", path_of("schedules", schedule_id), Schedule.parse, body={**changes})

    @endpoint
    def delete(self, schedule_id: str) -> Call[None]:
        """Delete a schedule; its runs stay."""
        return Call("DELETE", path_of("schedules", schedule_id), nothing)


class Schedules(_Schedules, SyncResource): ...


class AsyncSchedules(_Schedules, AsyncResource): ...


class About(TypedDict, total=False):
    """Person whom notes are about, if not the caller: an end user, of the API key in use or of another."""

    end_user: str
    key_id: str


class _Memory(Resource):
    @listing
    def list(self, **about: Unpack[About]) -> Call[Page[NoteItem]]:
        """Iterate over the notes of agents about the caller, by key."""
        return get("/v1/memory", page_of(NoteItem.parse), limit=100, **about)

    @endpoint
    def get(self, key: str, **about: Unpack[About]) -> Call[Note]:
        """Return a note."""
        return get(path_of("memory", key), Note.parse, **about)

    @endpoint
    def set(self, key: str, text: str, **about: Unpack[About]) -> Call[Note]:
        """Write a note, replacing one of this key."""
        call = Call("PUT", path_of("memory", key), Note.parse, {"text": text}, query=present(**about))
        return call.with_headers(Idempotency_Key=uuid.uuid4().hex)

    @endpoint
    def delete(self, key: str, **about: Unpack[About]) -> Call[None]:
        """Delete a note."""
        call = Call("DELETE", path_of("memory", key), nothing, query=present(**about))
        return call.with_headers(Idempotency_Key=uuid.uuid4().hex)


class Memory(_Memory, SyncResource): ...


class AsyncMemory(_Memory, AsyncResource): ...
