"""Model calls that a remote agent makes for a run, with the run's token: held, relayed, settled and kept.

The call is served by any replica, the run executed by another. So the call touches no row of the run: it is held and
settled under the lock of its token, and the run's worker makes a step of it (`service.runs.gateway_steps`). See
docs/adr/0040-run-tokens.md.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

from service.auth.run_tokens import RunGrant, RunTokens
from service.errors import BudgetExceeded, GuardrailRefused, InvalidToken, Overloaded, RateLimited, RunLimit
from service.guardrails.policy import Rail
from service.llm.client import ModelCall, ModelClient
from service.llm.relay import RelayedRequest
from service.observe import tracing
from service.runs.billing import COUNT_BYTES, COUNT_SECONDS
from service.runs.bulkhead import Bulkhead, Permit
from service.runs.gateway_call import AskedOfGateway, GatewayCall, Relayed
from service.runs.gateway_watch import GatewayWatch
from service.runs.guardrails import Guardrails
from service.runs.relay_guard import Acts, checked, guard_of
from service.store import gateway_calls as rows
from service.store import holds
from service.store import runs as run_rows
from service.store.database import Database, Transaction
from service.store.holds import Hold
from service.text import packed
from service.types import Run
from service.usage.prices import PriceTable
from service.usage.reservation import Spending


@dataclass(frozen=True, slots=True)
class GatewayCalls:
    """Makes calls with tokens of runs. One per process."""

    db: Database
    tokens: RunTokens
    client: ModelClient  # see `service.llm.relay`
    prices: PriceTable
    spending: Spending
    watch: GatewayWatch
    guardrails: Guardrails
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
        rails = self.guardrails.of_workspace(grant.workspace_id)
        digest = _digest(request, rails.digest)
        kept = self.db.transact(lambda tx: self._kept(tx, grant, digest))
        if kept is not None:
            return Relayed(kept=True, pieces=iter([packed.unpacked(kept)]))
        run, tree = self.db.query(lambda tx: (run_rows.get(tx, grant.run_id), _tree_of(tx, grant)))
        if run is None or (tree is None and grant.tree_id is not None):
            raise InvalidToken()
        tracing.join(run.request.trace)
        asked = AskedOfGateway(request, digest)
        self._put_under(asked, rails.rail, run)
        call = GatewayCall(self, grant, run, asked, tree)
        relayed = Relayed()
        pieces = call.pieces(relayed, hang_up)
        try:
            first = next(pieces)
        except (BudgetExceeded, RunLimit) as error:
            self.tokens.note_refusal(grant, error)
            raise
        relayed.pieces, relayed.close = itertools.chain([first], pieces), pieces.close
        return relayed

    def _put_under(self, asked: AskedOfGateway, rail: Rail, run: Run) -> None:
        """Put a call under guardrails, if there are any. Raises `GuardrailRefused`."""

        def tell(acted: Acts) -> None:
            self.guardrails.count(acted)
            asked.acted.extend(acted)

        asked.guard = guard = guard_of(rail, tell)
        try:
            asked.request = asked.request if guard is None else guard.asked(asked.request)
        except GuardrailRefused as error:
            self.guardrails.note_refusal(run, error)
            raise

    def count_tokens(self, grant: RunGrant, request: RelayedRequest) -> int:
        """Count a prompt's tokens, which is free. Raises `GuardrailRefused` and the errors of the model."""
        return self.counted(checked(request, self.guardrails.of_workspace(grant.workspace_id).rail))

    def counted(self, request: RelayedRequest) -> int:
        """Count the tokens of a prompt that guardrails have passed."""
        seconds = COUNT_SECONDS + len(request.body) / COUNT_BYTES
        return self.client.count_tokens(request, ModelCall(time.monotonic() + seconds))

    def _kept(self, tx: Transaction, grant: RunGrant, digest: str) -> str | None:
        """Take the kept answer to this body, if there is one. Raises `InvalidToken`."""
        if not rows.lock(tx, grant.digest):
            raise InvalidToken()
        row = rows.take_kept(tx, grant.run_id, grant.attempt, digest)
        return None if row is None else row["answer"]


def _digest(request: RelayedRequest, rails: str) -> str:
    """Return the digest of a request, under which its answer is kept, and of the guardrails on it."""
    parts = [request.betas.encode(), request.body, *([rails.encode()] if rails else [])]
    return hashlib.sha256(b"\n".join(parts)).hexdigest()


def _tree_of(tx: Transaction, grant: RunGrant) -> Hold | None:
    """Find the open hold of a token's tree."""
    if grant.tree_id is None:
        return None
    return next((hold for hold in holds.of_run(tx, grant.run_id) if hold.id == grant.tree_id), None)
