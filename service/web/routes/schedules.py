"""Schedules: create, list, read, change, delete."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from flask import Blueprint, Response
from pydantic import AfterValidator, Field, model_validator

from service import errors
from service.schedules import schedules
from service.schedules.cron import MAX_CRON
from service.schedules.plan import Missed
from service.store.database import Transaction
from service.usage.caps import nano_of
from service.web.admission import guard
from service.web.current import current_caller, services
from service.web.idempotency import once
from service.web.openapi import api
from service.web.paging import PAGE, page, page_arguments
from service.web.schemas import Amount, Body, ModelText, Page, Shape, json_response, no_nul
from service.web.validation import parse

blueprint = Blueprint("schedules", __name__)
CronText = Annotated[
    str,
    Field(
        max_length=MAX_CRON,
        description="Five fields: minute, hour, day of the month, month, day of the week",
    ),
    AfterValidator(no_nul),
]
Zone = Annotated[
    str,
    Field(min_length=1, max_length=64, description="Name of an IANA time zone, such as Europe/Berlin"),
    AfterValidator(no_nul),
]


def _something(text: str) -> str:
    if not nano_of(text):
        raise ValueError("must be more than 0")
    return text


RunCap = Annotated[Amount, AfterValidator(_something)]
SessionId = Annotated[str, Field(pattern=r"^ses_[0-9a-z]{26}$")]


class NewSchedule(Body):
    """New schedule. `cap_usd`: the most that each of its runs may cost, within all caps."""

    agent: Annotated[str, Field(min_length=1, max_length=64), AfterValidator(no_nul)]
    input: ModelText
    cron: CronText
    timezone: Zone = "UTC"
    missed: Missed = "skip"
    session_id: SessionId | None = None
    cap_usd: RunCap | None = None
    enabled: bool = True


class ScheduleChange(Body):
    """Changes of a schedule; omitted fields keep their values. `enabled`, also if it was, begins with the next slot."""

    input: ModelText | None = None
    cron: CronText | None = None
    timezone: Zone | None = None
    missed: Missed | None = None
    session_id: SessionId | None = None
    cap_usd: RunCap | None = None
    enabled: bool | None = None

    @model_validator(mode="after")
    def _changes(self) -> ScheduleChange:
        if not self.model_fields_set:
            raise ValueError("send something to change")
        for name in self.model_fields_set - {"session_id", "cap_usd"}:
            if getattr(self, name) is None:
                raise errors.fault(f"/{name}", "must not be null")
        return self


class ScheduleItem(Shape):
    """Schedule in a list. `next_at` is null while it is not enabled; `stopped` says why the service disabled it."""

    id: str
    user_id: str
    agent: str
    cron: str
    timezone: str
    missed: Missed
    session_id: str | None
    cap_usd: str | None
    enabled: bool
    next_at: str | None
    stopped: str | None
    created_at: str
    updated_at: str


class ScheduleView(ScheduleItem):
    input: str


class ScheduledRun(Shape):
    """Run of a slot; `status` is null once the run is deleted."""

    slot_at: str
    run_id: str
    status: str | None


class MissedSlot(Shape):
    """Slots from `slot_at` to `until_at` that made no run, mostly one; `code` says why."""

    slot_at: str
    until_at: str
    outcome: Literal["skipped", "refused"]
    code: str


class ScheduleDetail(ScheduleView):
    """Schedule with its last five runs, and the last five outcomes without one, newest first."""

    last_runs: list[ScheduledRun]
    last_missed: list[MissedSlot]


class SchedulePage(Page[ScheduleItem]): ...


@blueprint.post("/v1/schedules")
@api(
    "Create a schedule: an agent is asked at the times of a cron expression",
    body=NewSchedule,
    returns={201: ScheduleView},
    errors=[
        errors.Invalid,
        errors.Forbidden,
        errors.NotFound,
        errors.IdempotencyMismatch,
        errors.TooMany,
    ],
    headers=["Idempotency-Replayed"],
)
@guard()
def create_schedule() -> Response:
    body, known = parse(NewSchedule), services().schedules
    row = known.new(current_caller(), body.agent, _columns(body))

    def work(tx: Transaction) -> dict[str, Any]:
        return schedules.public(known.insert(tx, row))

    return once(work, 201)


@blueprint.get("/v1/schedules")
@api(
    "List schedules, newest first, without their inputs",
    returns={200: SchedulePage},
    errors=[errors.Invalid],
    query=PAGE,
)
@guard()
def list_schedules() -> Response:
    limit, before = page_arguments()
    found = services().schedules.page(current_caller(), limit=limit + 1, before=before)
    return json_response(page([schedules.item(row) for row in found], limit))


@blueprint.get("/v1/schedules/<schedule_id>")
@api(
    "Get a schedule with what became of its last slots",
    returns={200: ScheduleDetail},
    errors=[errors.NotFound],
)
@guard()
def get_schedule(schedule_id: str) -> Response:
    return json_response(schedules.detailed(services().schedules.get(schedule_id, current_caller())))


@blueprint.patch("/v1/schedules/<schedule_id>")
@api(
    "Change, pause or resume a schedule",
    body=ScheduleChange,
    returns={200: ScheduleDetail},
    errors=[errors.NotFound, errors.Invalid, errors.Forbidden],
)
@guard()
def change_schedule(schedule_id: str) -> Response:
    body, caller, known = parse(ScheduleChange), current_caller(), services().schedules
    known.change(caller, schedule_id, _columns(body, only=body.model_fields_set))
    return json_response(schedules.detailed(known.get(schedule_id, caller, own=True)))


@blueprint.delete("/v1/schedules/<schedule_id>")
@api("Delete a schedule; its runs stay", returns={204: None}, errors=[errors.NotFound])
@guard()
def delete_schedule(schedule_id: str) -> Response:
    services().schedules.delete(current_caller(), schedule_id)
    return Response(status=204)


def _columns(body: NewSchedule | ScheduleChange, only: set[str] | None = None) -> dict[str, Any]:
    """Return the fields of a body, the cap in nano-dollars."""
    fields = body.model_dump(include=only, exclude={"agent"})
    if "cap_usd" in fields:
        cap = fields.pop("cap_usd")
        fields["cap_nano"] = None if cap is None else nano_of(cap)
    return fields
