"""One model call with the token of a run, from its hold to its settlement."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from service.audit.record import Action, record
from service.auth.run_tokens import RunGrant
from service.errors import GuardrailRefused, InvalidToken, ModelError, RateLimited, RunCancelled, RunLimit
from service.ids import new_id
from service.llm.client import CallProgress, ModelCall, ModelReply
from service.llm.relay import RelayedRequest
from service.runs.billing import bound_of, is_by_address, settle_progress, settle_reply
from service.runs.gateway_watch import WatchedCall
from service.runs.relay_guard import RelayGuard
from service.store import gateway_calls as rows
from service.store.database import Transaction
from service.store.holds import Hold
from service.store.transaction import WriteInTransaction
from service.text import packed
from service.types import Run, now_ms
from service.usage.estimate import CallEstimate, Settlement
from service.usage.prices import Price, today

if TYPE_CHECKING:
    from service.runs.gateway_calls import GatewayCalls

AT_ONCE = 8  # calls under way with one token


@dataclass(slots=True)
class Relayed:
    """Answer on its way. `cost_nano`, once it has ended."""

    kept: bool = False  # given from an earlier attempt of the run, at no cost
    cost_nano: int = 0
    pieces: Iterator[bytes] = field(default_factory=lambda: iter(()))
    close: Callable[[], None] = lambda: None  # stops a call that has not ended, and settles it


@dataclass(slots=True)
class AskedOfGateway:
    """Request as its model may read it, the digest under which its answer is kept, and the guardrails on both."""

    request: RelayedRequest
    digest: str
    guard: RelayGuard | None = None
    acted: list[Mapping[str, Any]] = field(default_factory=list)  # what these did


@dataclass(frozen=True, slots=True)
class _Estimate(CallEstimate):
    """Estimate that remembers the ids of the holds made of it; the last is the one being written."""

    made: list[str] = field(default_factory=list)

    def hold(self, tokens: int, at: int) -> Hold:
        hold = CallEstimate.hold(self, tokens, at)
        self.made.append(hold.id)
        return hold


class GatewayCall:
    """One call, from its hold to its settlement."""

    def __init__(
        self,
        calls: GatewayCalls,
        grant: RunGrant,
        run: Run,
        asked: AskedOfGateway,
        tree: Hold | None,
    ) -> None:
        self._calls, self._grant, self._run, self._tree = calls, grant, run, tree
        self._asked, request = asked, asked.request
        self._request = request
        self._id = new_id("gwc")
        self._price: Price = calls.prices.price(request.model, today())
        self._hold: Hold | None = None
        seconds = max(0.0, grant.expires_at / 1000 - time.time())
        self._call = ModelCall(time.monotonic() + seconds, before_retry=self._before_retry)

    def pieces(self, relayed: Relayed, hang_up: Callable[[], None]) -> Generator[bytes]:
        """Yield the answer's bytes; settle on every exit."""
        calls, request, guard = self._calls, self._request, self._asked.guard
        self._reserve()
        watched = WatchedCall(self._grant.digest, self._call, hang_up)
        kept: list[bytes] = []
        reply: ModelReply | None = None
        answer = calls.client.create(request, self._call)
        try:
            with calls.watch.watching(watched):
                while True:
                    try:
                        piece: Any = next(answer)
                    except StopIteration as done:
                        reply = done.value
                        break
                    if told := piece if guard is None else guard.answered(piece):
                        kept.append(told)
                        with watched.offering():
                            yield told
                    if guard is not None:
                        guard.check()
                if guard is not None and (rest := guard.rest()):
                    kept.append(rest)
                    with watched.offering():
                        yield rest
                    guard.check()
        except RunCancelled:
            raise InvalidToken() from None  # the watch found that the run has ended
        except GuardrailRefused:
            kept.clear()
            raise
        finally:
            answer.close()
            relayed.cost_nano = self._settle(reply, b"".join(kept))

    def _reserve(self) -> None:
        """Hold the most that the call can cost: all of it, as a shorter answer is not what was asked for."""
        request, run = self._request, self._run
        estimate = _Estimate(
            run=run,
            step=self._grant.step,
            price=self._price,
            model=request.model,
            max_tokens=request.max_tokens,
            fewest=request.max_tokens,
            input_tokens=bound_of(request),
            count=None if is_by_address(request) else lambda: self._calls.counted(request),
            tree=self._tree,
        )

        def write(first: WriteInTransaction, hold: WriteInTransaction) -> None:
            def work(tx: Transaction) -> None:
                self._check_bounds(tx)
                # Before money, since it locks its run's row.
                rows.insert(tx, {**self._row(), "hold_id": estimate.made[-1]})
                first(tx)
                hold(tx)
                self._calls.spending.check_run(estimate, rows.spent(tx, run.id))

            self._calls.db.transact(work)

        self._hold = self._calls.spending.reserve(estimate, write, self._check_token).hold

    def _check_bounds(self, tx: Transaction) -> None:
        """Lock the token and check its bounds. Raises `InvalidToken`, `RunLimit` and `RateLimited`."""
        grant = self._grant
        if not rows.lock(tx, grant.digest):
            raise InvalidToken()
        used = rows.used(tx, grant.digest)
        if used["calls"] >= grant.most_calls:
            raise RunLimit(f"The agent has made {grant.most_calls} model calls, and may make no more.")
        if used["open"] >= AT_ONCE:
            raise RateLimited(f"{AT_ONCE} model calls of this agent are under way.", retry_after=1)

    def _check_token(self) -> None:
        if not self._calls.tokens.still_valid([self._grant.digest]):
            raise InvalidToken()

    def _before_retry(self, failed: CallProgress) -> None:
        """Settle an attempt that may be billed: no second one is made, as its hold covers one. Raises `ModelError`."""
        self._check_token()
        if failed.billable:
            raise ModelError("The model's answer broke off")

    def _row(self) -> dict[str, Any]:
        grant = self._grant
        return {
            "id": self._id,
            "run_id": grant.run_id,
            "attempt": grant.attempt,
            "token": grant.digest,
            "branch": grant.branch,
            "digest": self._asked.digest,
            "state": rows.OPEN,
            "model": self._request.model,
            "started_at": now_ms(),
        }

    def _settle(self, reply: ModelReply | None, body: bytes) -> int:
        """Settle the hold and store the call's end; return its cost in nano-dollars.

        The answer is kept only where its attempt still executes the run. A hold that another has settled, such as the
        next attempt, costs nothing more.
        """
        hold, grant = self._hold, self._grant
        if hold is None:
            return 0
        settlement = self._settlement(hold, reply)
        kept = packed.kept(body) if reply is not None and body else None

        def work(tx: Transaction) -> int:
            current = rows.lock(tx, grant.digest)
            held = rows.is_held(tx, hold.run_id, hold.id)
            ended = {
                "state": rows.FAILED if reply is None else rows.DONE,
                "model": self._request.model if reply is None else reply.model,
                "usage": list(settlement.usage) if held else None,
                "source": settlement.source,
                "cost_nano": settlement.cost if held else 0,
                "answer": kept if current else None,
            }
            rows.finish(tx, self._id, self._run.user_id, ended)
            settlement.work(tx)
            if self._asked.acted:
                record(tx, Action.GUARDRAIL, f"run:{hold.run_id}", agent=grant.agent, acted=self._asked.acted)
            return settlement.cost if held else 0

        return self._calls.db.transact(work, patience=30)

    def _settlement(self, hold: Hold, reply: ModelReply | None) -> Settlement:
        spending, request = self._calls.spending, self._request
        if reply is None:
            return settle_progress(spending, hold, self._price, request, self._call.progress)
        return settle_reply(spending, hold, self._price, request, reply)
