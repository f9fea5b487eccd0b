"""Billing of one model call: held in the transaction that starts its step, settled in the one that stores it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import orjson

from service.errors import AgentStopped
from service.files import references
from service.llm.client import CallProgress, ModelCall, ModelReply, ModelRequest
from service.llm.relay import RelayedRequest
from service.runs.attempt import Attempt
from service.runs.event_log import NewEvent
from service.runs.journal import Journal
from service.store.holds import Hold
from service.store.transaction import WriteInTransaction
from service.types import RunEvent, Usage
from service.usage.bounds import (
    LARGEST_WINDOW,
    estimated_usage,
    interrupted_usage,
    is_plausible,
    prompt_bound,
)
from service.usage.estimate import FEWEST_TOKENS, CallEstimate, Reserved, Settlement
from service.usage.prices import Price
from service.usage.reservation import Spending

log = logging.getLogger("slipway.money")
CountTokens = Callable[[ModelRequest, ModelCall], int]
COUNT_SECONDS = 5.0  # limit for the provider's count of a prompt, and with files …
COUNT_BYTES = 1024 * 1024  # … a second more for so many bytes
LATE = 0.5  # seconds from a hold's write to its call; after a hang the agent may be stopped meanwhile


class CallBilling:
    """Hold and settlement of one model call. A retry after a possibly charged attempt costs extra."""

    def __init__(self, spending: Spending, attempt: Attempt, count: CountTokens, price: Price) -> None:
        self._spending = spending
        self._run = attempt.run
        self._journal = attempt.journal
        self._handle = attempt.handle
        self._tree = attempt.tree
        self._count = count
        self._price = price
        self._reserved: Reserved | None = None

    def reserve(
        self,
        request: ModelRequest,
        *,
        whole: bool = False,
        along: Sequence[WriteInTransaction] = (),
        then: Sequence[NewEvent] = (),
    ) -> tuple[ModelRequest, list[RunEvent]]:
        """Hold the most the call can cost. Return the request as it may be sent, and events published meanwhile.

        `whole`: without shortening the answer; `along` is written with the hold, `then` published after it. Raises
        `BudgetExceeded`, `AgentStopped`, or the run's stop reason.
        """
        fewest = (
            request.max_tokens if whole or request.json_schema else min(FEWEST_TOKENS, request.max_tokens)
        )
        events = self._hold(request, fewest, along, then)
        assert self._reserved is not None
        granted = self._reserved.max_tokens
        return (request if granted == request.max_tokens else replace(request, max_tokens=granted)), events

    def reserve_again(self, request: ModelRequest, failed: CallProgress) -> None:
        """Settle the failed attempt, and hold for the next with the same `max_tokens`. Raises as `reserve` does.

        The hold of one that cannot be billed is the next one's.
        """
        if not failed.billable:
            self._journal.check_owner()
            return
        self.settle_failed(request, failed)
        self._hold(request, fewest=request.max_tokens)

    def settle(self, request: ModelRequest, reply: ModelReply) -> tuple[ModelReply, int]:
        """Settle the call in the transaction that stores its step.

        Return the reply with the booked usage, and its cost in nano-dollars.
        """
        assert self._reserved is not None
        settlement = settle_reply(self._spending, self._reserved.hold, self._price, request, reply)
        self._journal.write_with_next(settlement.work)
        return booked(reply, settlement), settlement.cost

    def settle_failed(self, request: ModelRequest, progress: CallProgress) -> None:
        """Settle an interrupted call in the run's next transaction: the run pays for the usage so far."""
        reserved, self._reserved = self._reserved, None
        if reserved is not None:
            settlement = settle_progress(self._spending, reserved.hold, self._price, request, progress)
            book_later(self._journal, settlement)

    def _hold(
        self,
        request: ModelRequest,
        fewest: int,
        along: Sequence[WriteInTransaction] = (),
        then: Sequence[NewEvent] = (),
    ) -> list[RunEvent]:
        events: list[RunEvent] = []
        wrote_at = 0.0
        estimate = CallEstimate(
            run=self._run,
            step=self._journal.steps + 1,
            price=self._price,
            model=request.model,
            max_tokens=request.max_tokens,
            fewest=fewest,
            input_tokens=bound_of(request),
            count=None if is_by_address(request) else lambda: self._counted(request),
            most=self._spending.remaining_budget(self._run) if self._tree is None else None,
            tree=self._tree,
            waits=self._run.request.on_cap == "pause",
        )

        def before_retry() -> None:
            self._handle.check()
            if self._journal.has_writes:  # pending settlements free room
                events.extend(self._journal.commit())

        def write(first: WriteInTransaction, hold: WriteInTransaction) -> None:
            nonlocal wrote_at
            wrote_at = time.monotonic()
            events.extend(self._journal.commit(*along, first=first, last=hold, then=then))

        self._reserved = self._spending.reserve(estimate, write, before_retry)
        if time.monotonic() - wrote_at > LATE:
            self._check_again(request)
        return events

    def _check_again(self, request: ModelRequest) -> None:
        """Settle the hold unused where the agent was stopped after it. Raises `AgentStopped` then."""
        try:
            self._journal.check_owner()
        except AgentStopped:
            self.settle_failed(request, CallProgress())
            raise

    def _counted(self, request: ModelRequest) -> int:
        """Count the prompt's tokens in a call of its own: the handle's model call may be under way.

        Raises `AgentStopped`: a prompt that is counted is sent too.
        """
        self._spending.check_running(self._run.agent)
        seconds = COUNT_SECONDS + _bytes_of(request) / COUNT_BYTES
        return self._count(request, ModelCall(min(self._handle.deadline, time.monotonic() + seconds)))


def settle_reply(
    spending: Spending, hold: Hold, price: Price, request: ModelRequest, reply: ModelReply
) -> Settlement:
    """Settle to an answer's reported usage; if it is unreliable to an estimate, and at most to the hold."""
    prompt = bound_of(request)
    if reply.usage_source == "worst" or not _plausible(hold, request, prompt, reply.usage):
        return spending.settle_worst(hold)
    if reply.usage_source == "reported":
        if price.cost(reply.usage) > hold.amount_nano:  # of a prompt that nothing bounds, such as an image
            _flag(hold, reply.usage)
            return spending.settle_worst(hold)
        return spending.settle(hold, price, reply.usage)
    used = estimated_usage(reply.usage, len(orjson.dumps(reply.content)), prompt, request.max_tokens)
    if used is None or price.cost(used) > hold.amount_nano:
        return spending.settle_worst(hold)
    return spending.settle(hold, price, used, "estimate")


def settle_progress(
    spending: Spending, hold: Hold, price: Price, request: ModelRequest, progress: CallProgress
) -> Settlement:
    """Settle a call that did not end, to what its progress says: nothing, an estimate, or its hold."""
    if progress.usage is not None:
        return _settle_part(spending, hold, price, request, progress)
    return spending.settle_worst(hold) if progress.billable else spending.settle_unused(hold)


def _settle_part(
    spending: Spending, hold: Hold, price: Price, request: ModelRequest, progress: CallProgress
) -> Settlement:
    """Settle an interrupted call to an estimate of its usage so far, and at most to the hold."""
    assert progress.usage is not None
    if not _plausible(hold, request, bound_of(request), progress.usage):
        return spending.settle_worst(hold)
    used = interrupted_usage(progress.usage, progress.text, request.max_tokens)
    if price.cost(used) > hold.amount_nano:
        return spending.settle_worst(hold)
    return spending.settle(hold, price, used, "estimate")


def _plausible(hold: Hold, request: ModelRequest, prompt: int | None, usage: Usage) -> bool:
    """Return whether the call can have used what it reported; log it otherwise."""
    if is_plausible(usage, prompt, request.max_tokens):
        return True
    _flag(hold, usage)
    return False


def _flag(hold: Hold, usage: Usage) -> None:
    log.warning(
        "usage_implausible",
        extra={"hold": hold.id, "run_id": hold.run_id, "model": hold.model, "reported": usage._asdict()},
    )


def bound_of(request: ModelRequest) -> int | None:
    """Bound a prompt's tokens; None where counting does. An address may answer anew, so its content may be anything."""
    if is_by_address(request):
        return LARGEST_WINDOW
    if isinstance(request, RelayedRequest) and request.cites:
        return None
    return prompt_bound(request.system, request.messages, request.tools, request.json_schema)


def is_by_address(request: ModelRequest) -> bool:
    return isinstance(request, RelayedRequest) and request.by_address


def _bytes_of(request: ModelRequest) -> int:
    """Return the bytes that are sent with a prompt besides its text. What a client has written holds no references."""
    if isinstance(request, RelayedRequest):
        return len(request.body)
    return sum(one["size"] for one in references(request.messages))


def booked(reply: ModelReply, settlement: Settlement) -> ModelReply:
    """Return the reply as its step stores it: with the usage of the ledger."""
    return replace(reply, usage=settlement.usage, usage_source=settlement.source)


def book_later(journal: Journal, settlement: Settlement) -> None:
    """Write a settlement without a step in the run's next transaction, and add it to the run's usage."""
    journal.spent(settlement.usage, settlement.cost, settlement.source)
    journal.write_with_next(settlement.work)
