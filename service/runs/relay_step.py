"""Step of a run that relays one model call: the client's own body goes out, the bytes of the answer come back.

It is held, settled and stored as any model call of a run is, and made once: the body is not stored, and an answer that
has begun cannot be taken back. So an attempt of another worker settles the call and fails.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from service.agents.pattern import Events
from service.errors import AgentStopped, GuardrailRefused, WorkerLost
from service.llm.client import ModelClient, ModelReply
from service.llm.relay import RelayedRequest
from service.observe.observer import Observer
from service.runs.attempt import Attempt
from service.runs.billing import CallBilling
from service.runs.gateway_watch import GatewayWatch, WatchedCall
from service.runs.journal_codec import encode_reply
from service.runs.relay_guard import RelayGuard, guard_of
from service.runs.relayed_call import RelayedCall
from service.runs.replies import well_formed
from service.runs.step_spans import in_step
from service.store import steps as step_rows
from service.store.database import Transaction
from service.text import packed
from service.text.sanitise import storable
from service.types import Answer, Event, RunEvent
from service.usage.prices import PriceTable, today
from service.usage.reservation import Spending

NAME = "answer"
LOST = "The worker that relayed this call ended. The call is not made again by itself."
_ARRIVED = RunEvent(Event.TEXT_DELTA, {})  # told to nobody: hands the thread to whoever takes the pieces


@dataclass(frozen=True, slots=True)
class RelayDependencies:
    """Dependencies of all relayed calls; one set per process."""

    client: ModelClient  # see `service.llm.relay`
    prices: PriceTable
    spending: Spending
    observer: Observer
    watch: GatewayWatch


class RelayStep:
    """The one step of a relayed run."""

    def __init__(self, dependencies: RelayDependencies, attempt: Attempt) -> None:
        self._deps = dependencies
        self._attempt = attempt
        self._run, self._journal = attempt.run, attempt.journal

    def ask(self) -> Events[Answer]:
        """Hold, relay, settle. Raises `WorkerLost` in any attempt but the first, and as `RunSteps.model` does."""
        relayed = self._attempt.relayed
        if relayed is None:
            raise WorkerLost(LOST)
        self._attempt.handle.check()
        rails = self._attempt.rails
        guard = guard_of(rails.rail, rails.publish)
        request = relayed.request if guard is None else guard.asked(relayed.request)
        price = self._deps.prices.price(request.model, today())
        billing = CallBilling(self._deps.spending, self._attempt, self._deps.client.count_tokens, price)
        started = {"step": 1, "name": NAME, "kind": "model", "model": request.model}
        try:
            _, events = billing.reserve(request, whole=True, then=[(Event.STEP_STARTED, started)])
        except AgentStopped:
            if not self._journal.opened:
                raise
            raise WorkerLost(LOST) from None  # it cannot wait for a release, as its client does not
        yield from events
        told = _Told(relayed, guard)
        reply = yield from in_step(started, self._receive(request, billing, told))
        reply, cost = billing.settle(request, well_formed(reply, frozenset()))
        if guard is not None:
            reply = replace(reply, content=[]) if told.refusal is not None else guard.reply(reply)
        self._store(relayed, reply, cost, told.body)
        if told.refusal is not None:
            raise told.refusal
        answer = storable(reply.text)
        return Answer(answer, reply.stop_reason, reply.model, stop_sequence=reply.stop_sequence)

    def _receive(self, request: RelayedRequest, billing: CallBilling, told: _Told) -> Events[ModelReply]:
        """Receive the answer; its pieces are the client's as they arrive. An interrupted call is settled too."""
        began, handle, relayed = time.monotonic(), self._attempt.handle, told.relayed
        call = handle.call(None, before_retry=partial(billing.reserve_again, request))
        answer = self._deps.client.create(request, call)
        watched = WatchedCall(None, call, relayed.hang_up)
        try:
            with self._deps.watch.watching(watched):
                while True:
                    try:
                        piece: Any = next(answer)
                    except StopIteration as done:
                        reply: ModelReply = done.value
                        if told.end():
                            with watched.offering():
                                yield _ARRIVED
                        return reply
                    told.add(piece)
                    with watched.offering():
                        yield _ARRIVED
                    if told.guard is not None:
                        told.guard.check()
        except Exception:
            answer.close()  # so that its progress is known
            billing.settle_failed(request, call.progress)
            if not call.aborted or handle.reason is None:
                raise
            raise (WorkerLost(LOST) if handle.reason == "drain" else handle.why()) from None
        finally:
            answer.close()
            handle.over(call)
            relayed.seconds = time.monotonic() - began

    def _store(self, relayed: RelayedCall, reply: ModelReply, cost: int, body: bytes) -> None:
        stored, source = encode_reply(reply), reply.usage_source
        if relayed.kept and (text := packed.kept(body)) is not None:
            stored["relayed"] = text
        self._journal.add_step("model", NAME, stored, usage=reply.usage, cost_nano=cost, source=source)
        self._deps.observer.step(self._run, "model", NAME)
        if reply.text:
            self._attempt.text.write_after_commit(reply.text)
        used = {"step": 1, "model": reply.model, **reply.usage.public(cost, source)}
        self._journal.publish_after_commit(Event.USAGE, used)


class _Told:
    """Pieces of an answer on their way to the client, as the guardrails let them go, and all of them to be stored."""

    def __init__(self, relayed: RelayedCall, guard: RelayGuard | None) -> None:
        self.relayed, self.guard = relayed, guard
        self.refusal: GuardrailRefused | None = None  # of a complete answer, which is billed as such
        self._body: list[bytes] = []

    def add(self, piece: bytes) -> None:
        """Take a piece of the answer. Raises `GuardrailRefused`."""
        told = piece if self.guard is None else self.guard.answered(piece)
        if told:
            self.relayed.add(told)
            if self.relayed.kept:
                self._body.append(told)

    def end(self) -> bool:
        """Take what was held back of a complete answer; return whether that is anything."""
        if self.guard is None:
            return False
        rest = b""
        try:
            rest = self.guard.rest()
            self.guard.check()
        except GuardrailRefused as refusal:
            self.refusal = refusal
        if rest:
            self.relayed.add(rest)
            self._body.append(rest)
        return bool(rest)

    @property
    def body(self) -> bytes:
        return b"".join(self._body)


def kept_answer(tx: Transaction, run_id: str) -> bytes | None:
    """Return the bytes of the answer that a relayed run has stored, if it has."""
    rows = step_rows.of_run(tx, run_id)
    found = next((row["reply"]["relayed"] for row in rows if "relayed" in row["reply"]), None)
    return None if found is None else packed.unpacked(found)
