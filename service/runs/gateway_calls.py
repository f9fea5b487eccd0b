"""Model calls that a remote agent makes for a run, with the run's token: held, relayed, settled and kept.

The call is served by any replica, the run executed by another. So the call touches no row of the run: it is held and
settled under the lock of its token, and the run's worker makes a step of it (`service.runs.gateway_steps`). See
docs/adr/0040-run-tokens.md.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from service.auth.run_tokens import RunGrant, RunTokens
from service.errors import (
    BudgetExceeded,
    InvalidToken,
    ModelError,
    Overloaded,
    RateLimited,
    RunCancelled,
    RunLimit,
)
from service.ids import new_id
from service.llm.client import CallProgress, ModelCall, ModelClient, ModelReply
from service.llm.relay import RelayedRequest
from service.runs.billing import (
    COUNT_BYTES,
    COUNT_SECONDS,
    bound_of,
    is_by_address,
    settle_progress,
    settle_reply,
)
from service.runs.bulkhead import Bulkhead, Permit
from service.runs.gateway_watch import GatewayWatch, WatchedCall
from service.store import gateway_calls as rows
from service.store import holds
from service.store import runs as run_rows
from service.store.database import Database, Transaction
from service.store.holds import Hold
from service.store.transaction import WriteInTransaction
from service.text import packed
from service.types import Run, now_ms
from service.usage.estimate import CallEstimate, Settlement
from service.usage.prices import Price, PriceTable, today
from service.usage.reservation import Spending

AT_ONCE = 8  # calls under way with one token


@dataclass(slots=True)
class Relayed:
    """Answer on its way. `cost_nano`, once it has ended."""

    kept: bool = False  # given from an earlier attempt of the run, at no cost
    cost_nano: int = 0
    pieces: Iterator[bytes] = field(default_factory=lambda: iter(()))
    close: Callable[[], None] = lambda: None  # stops a call that has not ended, and settles it


@dataclass(frozen=True, slots=True)
class GatewayCalls:
    """Makes calls with tokens of runs. One per process."""

    db: Database
    tokens: RunTokens
    client: ModelClient  # see `service.llm.relay`
    prices: PriceTable
    spending: Spending
    watch: GatewayWatch
    places: Bulkhead
    reserve: Bulkhead  # where runs that wait for remote agents have taken all places

    def take_place(self, user_id: str) -> Permit:
        """Take a place for a call. Raises `Overloaded`, or `RateLimited` at the user's bound."""
        try:
            return self.places.take(user_id)
        except (Overloaded, RateLimited):
            return self.reserve.take(user_id)

    def relay(
        self, grant: RunGrant, request: RelayedRequest, hang_up: Callable[[], None] = lambda: None
    ) -> Relayed:
        """Hold, then relay; the first piece has arrived when this returns. `hang_up`: see `WatchedCall`.

        Raises `PriceUnknown`, `BudgetExceeded`, `RunLimit`, `RateLimited` for too many at once, `InvalidToken` for a
        run that has ended meanwhile, and the errors of the model.
        """
        digest = hashlib.sha256(b"%b\n%b" % (request.betas.encode(), request.body)).hexdigest()
        kept = self.db.transact(lambda tx: self._kept(tx, grant, digest))
        if kept is not None:
            return Relayed(kept=True, pieces=iter([packed.unpacked(kept)]))
        run, tree = self.db.query(lambda tx: (run_rows.get(tx, grant.run_id), _tree_of(tx, grant)))
        if run is None or (tree is None and grant.tree_id is not None):
            raise InvalidToken()
        call = _Call(self, grant, run, request, digest, tree)
        relayed = Relayed()
        pieces = call.pieces(relayed, hang_up)
        try:
            first = next(pieces)
        except (BudgetExceeded, RunLimit) as error:
            self.tokens.note_refusal(grant, error)
            raise
        relayed.pieces, relayed.close = itertools.chain([first], pieces), pieces.close
        return relayed

    def count_tokens(self, grant: RunGrant, request: RelayedRequest) -> int:
        """Count a prompt's tokens, which is free. Raises the errors of the model."""
        seconds = COUNT_SECONDS + len(request.body) / COUNT_BYTES
        return self.client.count_tokens(request, ModelCall(time.monotonic() + seconds))

    def _kept(self, tx: Transaction, grant: RunGrant, digest: str) -> str | None:
        """Take the kept answer to this body, if there is one. Raises `InvalidToken`."""
        if not rows.lock(tx, grant.digest):
            raise InvalidToken()
        row = rows.take_kept(tx, grant.run_id, grant.attempt, digest)
        return None if row is None else row["answer"]


@dataclass(frozen=True, slots=True)
class _Estimate(CallEstimate):
    """Estimate that remembers the ids of the holds made of it; the last is the one being written."""

    made: list[str] = field(default_factory=list)

    def hold(self, tokens: int, at: int) -> Hold:
        hold = CallEstimate.hold(self, tokens, at)
        self.made.append(hold.id)
        return hold


class _Call:
    """One call, from its hold to its settlement."""

    def __init__(
        self,
        calls: GatewayCalls,
        grant: RunGrant,
        run: Run,
        request: RelayedRequest,
        digest: str,
        tree: Hold | None,
    ) -> None:
        self._tree = tree
        self._calls, self._grant, self._run, self._request = calls, grant, run, request
        self._digest = digest
        self._id = new_id("gwc")
        self._price: Price = calls.prices.price(request.model, today())
        self._hold: Hold | None = None
        seconds = max(0.0, grant.expires_at / 1000 - time.time())
        self._call = ModelCall(time.monotonic() + seconds, before_retry=self._before_retry)

    def pieces(self, relayed: Relayed, hang_up: Callable[[], None]) -> Generator[bytes]:
        """Yield the answer's bytes; settle on every exit."""
        calls, request = self._calls, self._request
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
                    kept.append(piece)
                    with watched.offering():
                        yield piece
        except RunCancelled:
            raise InvalidToken() from None  # the watch found that the run has ended
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
            count=None if is_by_address(request) else lambda: self._calls.count_tokens(self._grant, request),
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
            "digest": self._digest,
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
        kept = packed.kept(body) if reply is not None else None

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
            return settlement.cost if held else 0

        return self._calls.db.transact(work, patience=30)

    def _settlement(self, hold: Hold, reply: ModelReply | None) -> Settlement:
        spending, request = self._calls.spending, self._request
        if reply is None:
            return settle_progress(spending, hold, self._price, request, self._call.progress)
        return settle_reply(spending, hold, self._price, request, reply)


def _tree_of(tx: Transaction, grant: RunGrant) -> Hold | None:
    """Find the open hold of a token's tree."""
    if grant.tree_id is None:
        return None
    return next((hold for hold in holds.of_run(tx, grant.run_id) if hold.id == grant.tree_id), None)
