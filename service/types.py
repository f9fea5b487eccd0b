"""Shared types: timestamps, money, usage, run events, callers and runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from operator import add
from typing import Any, Literal, NamedTuple, get_args

DEFAULT_WORKSPACE = "wsp_" + "0" * 26  # always there, under the name `default`
NANO = 1_000_000_000  # nano-dollars in a dollar

Effort = Literal["low", "medium", "high", "xhigh", "max"]
Tier = Literal["simple", "medium", "complex"]
Priority = Literal["high", "normal", "batch"]  # of tasks
PRIORITIES: tuple[Priority, ...] = ("high", "normal", "batch")  # the database has their numbers
OnConflict = Literal["reject", "queue", "interrupt"]  # behaviour of a second turn in a busy session
OnCap = Literal["fail", "pause"]  # behaviour of a run that meets a spending cap
Mode = Literal["wait", "stream", "queue"]  # how a run's caller gets its answer
Action = Literal["invoke", "stream", "task"]  # how a run is asked for: the last word of its door
_MODES: Mapping[Action, Mode] = {"invoke": "wait", "stream": "stream", "task": "queue"}  # see `mode_of`
DOOR_OF_MODE = {mode: door for door, mode in _MODES.items()}  # of a run that came by no door, as a command's
UsageSource = Literal["reported", "estimated", "worst"]  # origin of usage figures, most reliable first
Block = dict[str, Any]  # one content block of the Messages API, as JSON
Message = dict[str, Any]  # {"role": "user" | "assistant", "content": str | list[Block]}


def now_ms() -> int:
    """Return the time in milliseconds since 1970 UTC, the unit of every table."""
    return time.time_ns() // 1_000_000


def rfc3339(ms: int | None) -> str | None:
    """Format ms since 1970 as `2026-11-21T06:23:00.123Z`; None stays None."""
    if ms is None:
        return None
    return f"{rfc3339_second(ms // 1000)}.{ms % 1000:03d}Z"


def public_fields(row: Mapping[str, Any], names: str) -> dict[str, Any]:
    """Pick the fields of a row named in `names`, for an answer; `…_at` and `…_until`, in ms, as RFC 3339."""
    times = ("_at", "_until")
    return {name: rfc3339(row[name]) if name.endswith(times) else row[name] for name in names.split()}


@lru_cache(maxsize=64)
def rfc3339_second(second: int) -> str:
    """Format seconds since 1970 as `2026-11-21T06:23:00`. Cached: strftime costs more than a whole log line."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def usd(nano: int) -> str:
    """Format nano-dollars as dollars with six decimals, rounded up: never less than was spent."""
    micro = -(-nano // 1_000)
    sign, micro = ("-", -micro) if micro < 0 else ("", micro)
    return f"{sign}{micro // 1_000_000}.{micro % 1_000_000:06d}"


class Usage(NamedTuple):
    """Token counts of one or more model calls. `input_tokens` excludes both cache fields, as in the Messages API."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_creation_1h_input_tokens: int = 0  # the part of cache_creation_input_tokens kept for an hour
    server_tool_requests: int = 0

    def plus(self, other: Usage) -> Usage:
        return Usage(*map(add, self, other))

    def public(self, cost_nano: int, source: UsageSource) -> dict[str, Any]:
        """Return the `usage` object of a run result."""
        return {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cache_read_input_tokens": self.cache_read_input_tokens,
            "cache_creation_input_tokens": self.cache_creation_input_tokens,
            "cost_usd": usd(cost_nano),
            "usage_source": source,
        }


def less_sure(one: UsageSource, other: UsageSource) -> UsageSource:
    """Return the less reliable source, which a sum of both has."""
    return max(one, other, key=get_args(UsageSource).index)


NO_USAGE = Usage()


class RunStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    WAITING_APPROVAL = "waiting_approval"
    WAITING_BUDGET = "waiting_budget"  # for room under a spending cap
    PAUSED = "paused"  # queued, as its agent is stopped
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in (RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED)

    @property
    def waits(self) -> bool:
        """Return whether a person has to act, or a cap to renew, before anything happens."""
        return self in (RunStatus.WAITING_APPROVAL, RunStatus.WAITING_BUDGET, RunStatus.PAUSED)


class Event(StrEnum):
    """Event names of a run, part of the HTTP contract."""

    RUN_STARTED = "run.started"
    STEP_STARTED = "step.started"
    TEXT_DELTA = "text.delta"
    TOOL_CALLED = "tool.called"
    TOOL_FINISHED = "tool.finished"
    APPROVAL_REQUIRED = "approval.required"
    APPROVAL_DECIDED = "approval.decided"
    BUDGET_REQUIRED = "budget.required"
    RUN_RESUMED = "run.resumed"
    USAGE = "usage"
    GUARDRAIL = "guardrail"
    GAP = "gap"
    RECONNECT = "reconnect"
    RUN_COMPLETED = "run.completed"
    RUN_FAILED = "run.failed"
    RUN_CANCELLED = "run.cancelled"

    @property
    def is_last(self) -> bool:
        return self in LAST_EVENTS


LAST_EVENT = {
    RunStatus.SUCCEEDED: Event.RUN_COMPLETED,
    RunStatus.FAILED: Event.RUN_FAILED,
    RunStatus.CANCELLED: Event.RUN_CANCELLED,
}
LAST_EVENTS = frozenset(LAST_EVENT.values())


class RunEvent(NamedTuple):
    """Event of a run. `seq` is 0 until the journal assigns it, increasing within the run."""

    name: Event
    data: Mapping[str, Any]
    seq: int = 0


class Caller(NamedTuple):
    """Authenticated user, by token or API key."""

    user_id: str
    username: str
    role: Literal["user", "operator", "admin"]
    scopes: tuple[str, ...] = ()
    key_id: str | None = None
    family: str | None = None  # the token family, where a token was used
    limit_runs: str | None = None  # the user's own rate limit, such as "60/minute"; None: the setting's
    workspace_id: str = DEFAULT_WORKSPACE
    key_limit_runs: str | None = None  # the key's own, within that of its user

    @property
    def confined_to(self) -> str | None:
        """Workspace where an operator's or admin's rights end; None: the caller is an admin of the service."""
        return None if (self.role, self.workspace_id) == ("admin", DEFAULT_WORKSPACE) else self.workspace_id


@dataclass(frozen=True, slots=True)
class RunRequest:
    """Validated request for a run. `messages` are this turn's only; a session adds its history."""

    agent: str
    messages: tuple[Message, ...]
    session_id: str | None = None
    context: str | None = None  # JSON text of an object, as it was sent
    max_tokens: int | None = None
    max_steps: int | None = None  # below the agent's own limit
    effort: Effort | None = None
    tier: Literal["auto", "simple", "medium", "complex"] = "auto"
    cache: Literal["default", "bypass", "refresh"] = "default"
    on_disconnect: Literal["continue", "cancel"] = "continue"
    metadata: str | None = None  # JSON text of an object, as it was sent
    callback_url: str | None = None
    priority: Priority = "normal"
    on_conflict: OnConflict | None = None  # when its session is busy; None: the setting; not stored
    on_cap: OnCap | None = None  # None: the agent's, which a run's own request has
    parent_message_id: str | None = None  # message this turn continues; "": none; None: the newest
    output_schema: dict[str, Any] | None = None  # of the answer; None: the agent's own, if any
    client_tools: tuple[dict[str, Any], ...] | None = None  # as the Messages API takes them
    client_choice: Literal["none", "any"] | None = None  # none: only listed; any: one is to be called
    stop_sequences: tuple[str, ...] | None = None  # of steps whose text is told
    instructions: str | None = None  # of the application that asks, to the agent
    end_user: str | None = None  # for whom the caller asks, by the caller's own name for them
    tool_scopes: tuple[str, ...] | None = None  # of the caller's key; None: all tools
    cap_nano: int | None = None  # most the run may cost, within the caps; None: by these alone
    schedule_id: str | None = None  # schedule of which it is a run; stored with the run, as the next
    door: str | None = None  # label of the API surface
    asked_as: dict[str, Any] | None = None  # told by a door whenever the run is read there; None: it is not
    fork: dict[str, Any] | None = None  # a fork: of which run and from which step, see `service.runs.forks`
    relayed: bool | None = None  # the client wrote the body of its one model call, which is not stored
    files: dict[str, Any] | None = None  # `service.files.Files` of `messages`, until they are stored
    trace: str | None = None  # `traceparent` of the request that started the run; None: without traces

    @property
    def question(self) -> str:
        """Return the user's last words: results of the client's tools may follow them."""
        said = (message_text(message) for message in reversed(self.messages) if message["role"] == "user")
        return next(filter(None, said), "")


def message_text(message: Message) -> str:
    """Return the text of a message, of string or block content."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "\n".join(block.get("text", "") for block in content if block.get("type") == "text")


@dataclass(slots=True)
class ToolUse:
    """Entry of a run result's `tools`. `unknown`: the call may have had its effect."""

    name: str
    ok: bool
    ms: int
    unknown: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """Result of an agent pattern. `untold`: text of the output that no step has told; clients get it with the end."""

    output: str
    stop_reason: str
    model: str
    tier: str | None = None
    sources: tuple[dict[str, str], ...] = ()
    repeated_calls: tuple[str, ...] = ()  # tools of a loop that was stopped before this answer
    structured: Any = None  # the output as a value, if a schema was asked for
    stop_sequence: str | None = None  # that ended it, of those that were asked for
    client_calls: tuple[dict[str, Any], ...] = ()  # of tools of the client, which is to make them
    untold: str = ""


@dataclass(slots=True)
class Run:
    """Run as stored in the database. Times are ms since 1970; money is integer nano-dollars."""

    id: str
    user_id: str
    agent: str
    agent_version: str
    door: str  # a label; `mode` decides
    request: RunRequest
    status: RunStatus = RunStatus.RUNNING
    workspace_id: str = DEFAULT_WORKSPACE
    key_id: str | None = None
    request_id: str = ""
    tier: Tier | None = None
    attempt: int = 0
    losses: int = 0
    live_gap_attempt: int | None = None  # attempt whose client saw events that the live stream lacks
    last_seq: int = 0
    cancel_requested: bool = False
    usage: Usage = NO_USAGE
    cost_nano: int = 0
    usage_source: UsageSource = "reported"  # of the least reliable part; stored in the result and each step
    cache: str = "bypass"
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    untrusted: tuple[str, ...] | None = None  # sources of untrusted text; None: not known here
    created_at: int = field(default_factory=now_ms)
    started_at: int | None = None
    finished_at: int | None = None

    @property
    def resumed(self) -> bool:
        """Return whether the run is continued from the database, after a crash, a hand-over or a decision."""
        return self.attempt > 1

    @property
    def mode(self) -> Mode:
        return mode_of(self.door)


def mode_of(door: str) -> Mode:
    """Return a run's mode by its door."""
    return _MODES[action_of(door)]


def action_of(door: str) -> Action:
    """Return the last word of a door, such as `messages/stream`, as an action; by default `stream`."""
    return next((action for action in _MODES if action == door.rpartition("/")[2]), "stream")
