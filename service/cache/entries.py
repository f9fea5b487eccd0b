"""Entries of the answer cache: keys, owners and outcomes, and the serialisation of answers."""

from __future__ import annotations

from array import array
from typing import Any, Literal, NamedTuple, TypeAlias

import orjson

from service.error_table import all_errors
from service.errors import (
    AgentFault,
    ModelError,
    ModelRejected,
    ModelTimeout,
    ModelUnavailable,
    PriceUnknown,
    RunLimit,
    RunTimeout,
    SlipwayError,
)
from service.types import Run, RunStatus, now_ms

Cache = Literal["hit", "near", "stale", "coalesced", "miss", "bypass"]
Vector: TypeAlias = "array[float]"
COST = "cost_nano"  # of the run that made the answer; entries of releases before lack it
STORED_FIELDS = ("output", "structured", "stop_reason", "model", "tier", "steps", "tools", "sources")
MODEL_AWAY = (ModelUnavailable, ModelTimeout)  # errors for which a stale answer is better than none
# Errors that every run with the same question meets, however often it is retried. These and `ModelError`, which may
# be transient, are shared with all waiters; any other error, such as a spent budget, is the owner's alone.
LASTING = (ModelRejected, PriceUnknown, AgentFault, RunLimit, RunTimeout)
_SHARED_CODES = {error.code for error in all_errors() if issubclass(error, (ModelError, *LASTING))}
_BY_CODE = {error.code: error for error in all_errors()}


class Owner(NamedTuple):
    """Run that asks the model on behalf of all runs with the same question. `live`: its events can be followed."""

    run_id: str
    user_id: str
    live: bool

    def __str__(self) -> str:
        return f"{self.run_id} {self.user_id} {self.live:d}"

    @classmethod
    def parse(cls, text: bytes) -> Owner:
        run_id, user_id, live = text.decode().split()
        return cls(run_id, user_id, live == "1")


class CacheKey(NamedTuple):
    """Cache key of a question, covering everything its answer depends on. The first three fields are digests."""

    scope: str  # agent version, model, owner of the answers, request options
    exact: str  # digest of the verbatim question
    slot: str  # digest of the plain form, or of the verbatim question if it has none
    plain: str | None  # plain form itself; None: only identical text matches
    asker: Run | None = None  # stand-in for a run, which pays for a look-up by meaning

    @property
    def answer(self) -> str:
        return f"slipway:answer:{{{self.slot}}}"

    @property
    def flight(self) -> str:
        return f"slipway:flight:{{{self.slot}}}:{self.exact}"

    def outcome(self, run_id: str) -> str:
        return f"slipway:landing:{{{self.slot}}}:{run_id}"


class Outcome(NamedTuple):
    """Outcome of an owner's run: an answer, an error shared with all waiters, or neither."""

    answer: dict[str, Any] | None = None
    stale: bool = False
    error: SlipwayError | None = None


class CacheEntry(NamedTuple):
    """Result of a cache look-up: a usable answer, a stale answer for a model outage, or the owner making one.

    `outcome` belongs to that owner and is set if it has failed already.
    """

    cache: Cache
    answer: dict[str, Any] | None = None
    stale: dict[str, Any] | None = None
    owner: Owner | None = None
    outcome: Outcome | None = None
    vector: Vector | None = None


def outcome_of(raw: bytes) -> Outcome:
    """Parse the outcome that an owner stored for its waiters."""
    found = orjson.loads(raw)
    error = found.get("error")
    if error is not None:
        kind = _BY_CODE.get(error["code"], ModelError)
        return Outcome(error=kind(error["detail"], retry_after=error.get("retry_after")))
    return Outcome(found.get("answer"), found.get("stale", False))


def read_answer(
    raw: bytes | None, question: CacheKey
) -> tuple[Cache, dict[str, Any] | None, dict[str, Any] | None]:
    """Parse a stored answer: return its match (`hit`, `near`, `miss`), the answer if fresh, the answer if stale.

    An entry that is not as this version writes it counts as none.
    """
    try:
        until, exact, _, body = (raw or b"").split(b" ", 3)
        expired, answer = int(until) <= now_ms(), orjson.loads(body)
    except ValueError:
        return "miss", None, None
    if not isinstance(answer, dict) or not answer.keys() >= set(STORED_FIELDS):
        return "miss", None, None
    if expired:
        return "miss", None, answer
    return ("hit" if exact == question.exact.encode() else "near"), answer, None


def write_outcome(run: Run) -> tuple[bytes, bool]:
    """Serialise an outcome for `outcome_of`; True: it is an answer.

    An empty object for a cancelled run, and for one whose answer was cut short by its own budget.
    """
    if run.status is RunStatus.SUCCEEDED and run.result and "max_tokens_clamped" not in run.result:
        return b'{"stale":%b,"answer":%b}' % (
            b"true" if run.cache == "stale" else b"false",
            write_answer(run),
        ), True
    if run.status is RunStatus.FAILED and run.error and run.error["code"] in _SHARED_CODES:
        error = {name: run.error.get(name) for name in ("code", "detail", "retry_after")}
        return orjson.dumps({"error": error}), False
    return b"{}", False


def is_worth_keeping(run: Run) -> bool:
    """Return whether the run got a complete answer from the model itself.

    Not kept: truncated and refused ones, and those that the model had to give because it was in a loop.
    """
    made = run.status is RunStatus.SUCCEEDED and run.cache in ("miss", "bypass")
    if not made or run.result is None or "repeated_calls" in run.result:
        return False
    return bool(run.result["stop_reason"] == "end_turn")


def write_answer(run: Run) -> bytes:
    assert run.result is not None
    return orjson.dumps({**{name: run.result[name] for name in STORED_FIELDS}, COST: run.cost_nano})


def write_entry(run: Run, question: CacheKey, until: int) -> bytes:
    """Serialise an answer for `read_answer`, with the user who caused it, for `service.cache.forget`."""
    return b"%d %b %b %b" % (until, question.exact.encode(), run.user_id.encode(), write_answer(run))
