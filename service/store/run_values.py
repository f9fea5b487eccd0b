"""Mapping between a `Run` and its row."""

from __future__ import annotations

from typing import Any

from service.store import run_lists, task_line
from service.store.database import Row
from service.text import exact_json
from service.types import Run, RunRequest, RunStatus, Usage

AS_TEXT = ("context", "metadata")  # fields of a request that are JSON text
# Matters only until the run has begun; columns of their own; rows of their own.
NOT_STORED = ("on_conflict", "door", "schedule_id", "files")
_FIELDS = frozenset(RunRequest.__dataclass_fields__) - {*NOT_STORED}
# Fields of a run that are columns of the same name: those known when it begins, and the others.
_INSERTED = (
    "id workspace_id user_id key_id agent agent_version door request_id status tier cache attempt last_seq created_at "
    "started_at"
)
_LATER = "losses live_gap_attempt cancel_requested cost_nano error finished_at"


def request_json(request: RunRequest) -> dict[str, Any]:
    """Serialise a request without fields that are None: older code can read it then."""
    fields = {
        name: getattr(request, name) for name in RunRequest.__dataclass_fields__ if name not in NOT_STORED
    }
    fields |= {name: exact_json.to_stored(fields[name]) for name in AS_TEXT}
    return {name: value for name, value in fields.items() if value is not None}


def inserted_values(run: Run) -> dict[str, Any]:
    """Columns of a run that begins."""
    plain = {name: getattr(run, name) for name in _INSERTED.split()}
    asked = run.request
    request = {
        "session_id": asked.session_id,
        "schedule_id": asked.schedule_id,
        "subject_id": (asked.fork or {}).get("user_id"),
        "request": request_json(asked),
    }
    return {**plain, **request, **run_lists.begun(run), **task_line.place_of(run)}


def result_values(run: Run) -> dict[str, Any]:
    """Return the columns that store a run's result; `input` in it is None: the run's request has it."""
    result = None if run.result is None else {**run.result, "input": None}
    return {"result": result, **run_lists.ended(run.result)}


def progress_values(run: Run) -> dict[str, int]:
    """Return the columns that store a run's progress: the number of its last event, usage and cost."""
    return {
        "last_seq": run.last_seq,
        "input_tokens": run.usage.input_tokens,
        "output_tokens": run.usage.output_tokens,
        "cache_read_tokens": run.usage.cache_read_input_tokens,
        "cache_creation_tokens": run.usage.cache_creation_input_tokens,
        "cost_nano": run.cost_nano,
    }


def run_of(row: Row) -> Run:
    """Build a run from its row. Request fields of newer versions are ignored: a deploy may be rolled back."""
    fields = {name: value for name, value in row["request"].items() if name in _FIELDS}
    fields["messages"] = tuple(fields["messages"])
    for name in AS_TEXT:
        fields[name] = exact_json.to_text(fields.get(name))
    request = RunRequest(**fields, schedule_id=row["schedule_id"])
    plain = {name: row[name] for name in f"{_INSERTED} {_LATER}".split()} | {
        "status": RunStatus(row["status"])
    }
    return Run(**plain, request=request, usage=usage_of(row), result=_result_of(row, request))


def usage_of(row: Row) -> Usage:
    return Usage(
        row["input_tokens"], row["output_tokens"], row["cache_read_tokens"], row["cache_creation_tokens"]
    )


def _result_of(row: Row, request: RunRequest) -> dict[str, Any] | None:
    """Complete the stored result from the row: older versions stored fewer fields in it."""
    if row["result"] is None:
        return None
    defaults = {"structured": None} | {name: row[name] for name in ("agent_version", "user_id", "door")}
    missing = {name: value for name, value in defaults.items() if name not in row["result"]}
    return {**row["result"], **missing, "input": request.question}  # `input` keeps its place
