"""Embeddings under caps: each call of an embedding endpoint is held before it is sent, and settled in the ledger.

A call is paid by its run, as a model call is, or by somebody outside of runs: a caller whose question is looked up in
the cache, or the workspace whose documents are indexed. No call waits for room under a cap.
"""

from __future__ import annotations

import logging
import threading
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from service.errors import AgentStopped, BudgetExceeded, DatabaseUnavailable, PriceUnknown
from service.infra.backends import Infra
from service.knowledge.vectors import NoVectors, Why
from service.llm.embeddings import BATCH_SECONDS, SECONDS, Embedded, HttpEmbedder
from service.store.database import Database
from service.store.holds import Hold
from service.store.transaction import WriteInTransaction
from service.types import Caller, Run, RunRequest, Usage, UsageSource
from service.usage.build import UsageServices
from service.usage.estimate import CallEstimate, Settlement
from service.usage.prices import Price, PriceTable, today
from service.usage.reservation import Spending

log = logging.getLogger("slipway.money")
PATIENCE = 1.0  # seconds that a call waits for a database that is away
MORE_TOKENS = 8  # that a model may add to each text, whose own are at most its bytes
Spent = Callable[[int, UsageSource], object]  # told nano-dollars, and how sure they are


def _ignore(cost_nano: int, source: UsageSource) -> None:
    """Tell nobody."""


def asker(caller: Caller, agent: str, end_user: str | None) -> Run:
    """Make a stand-in for a run, of a caller's call that no run makes; it is stored nowhere."""
    request = RunRequest(agent, (), end_user=end_user)
    return Run(
        "", caller.user_id, agent, "", "", request, workspace_id=caller.workspace_id, key_id=caller.key_id
    )


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Embedding endpoint and what its calls cost; one per process and endpoint."""

    endpoint: HttpEmbedder
    prices: PriceTable
    spending: Spending
    db: Database

    @property
    def name(self) -> str:
        """Name of the model: vectors of different models cannot be compared."""
        return self.endpoint.name

    def of(self, run: Run, tree: Hold | None = None, spent: Spent = _ignore) -> PaidEmbedder:
        """Return the embedder whose calls a run pays, or the stand-in of one; `tree` as for its model calls."""
        return PaidEmbedder(self, run, tree, spent)

    def of_workspace(self, workspace_id: str, agent: str) -> PaidEmbedder:
        """Return the embedder whose calls a workspace pays: in the ledger its id stands in a user's place."""
        return self.of(_indexing(workspace_id, agent))

    def refusal(self, workspace_id: str, agent: str, tokens: int) -> Why | None:
        """Return why a workspace can embed no text of so many tokens now; None: it can."""
        try:
            estimate = self.estimate(_indexing(workspace_id, agent), self.price(), tokens, None)
            self.spending.check_running(agent)
        except PriceUnknown:
            return "price_unknown"
        except AgentStopped:
            return "agent_stopped"
        return None if self.spending.has_room(estimate) else "cap_reached"

    def price(self) -> Price:
        """Return today's price. Raises `PriceUnknown`."""
        return self.prices.embedding(self.name, today())

    def estimate(self, run: Run, price: Price, tokens: int, tree: Hold | None) -> CallEstimate:
        most = self.spending.remaining_budget(run) if run.id and tree is None else None
        return CallEstimate(run, 0, price, self.name, 0, 0, tokens, None, most, tree)


@dataclass(frozen=True, slots=True)
class PaidEmbedder:
    """Embedder whose calls one run pays, or somebody outside of runs, one after the other."""

    whole: Embeddings
    run: Run
    tree: Hold | None
    spent: Spent
    turn: threading.Lock = field(default_factory=threading.Lock)  # so that what is left for a run is known

    @property
    def name(self) -> str:
        return self.whole.name

    def embed(self, text: str) -> array[float] | None:
        """Return a query's unit vector; None without: also where it cannot be paid. Never raises."""
        if self.whole.endpoint.rests:
            return None
        try:
            return self._ask([text], SECONDS)[0]
        except (NoVectors, DatabaseUnavailable):
            return None

    def embed_all(self, texts: Sequence[str]) -> list[array[float]]:
        """Return the unit vectors of passages. Raises `NoVectors` and `DatabaseUnavailable`."""
        return self._ask(texts, BATCH_SECONDS)

    def _ask(self, texts: Sequence[str], seconds: float) -> list[array[float]]:
        bound = sum(len(text.encode(errors="replace")) + MORE_TOKENS for text in texts)
        with self.turn:
            price, hold = self._reserve(bound)
            answer = Embedded(None)
            try:
                answer = self.whole.endpoint.ask(texts, seconds)
            finally:
                self._settle(hold, price, bound, answer)
        if answer.vectors is None:
            raise NoVectors("endpoint_away")
        return answer.vectors

    def _reserve(self, bound: int) -> tuple[Price, Hold]:
        """Hold the most that texts of so many tokens can cost. Raises `NoVectors`."""
        try:
            price = self.whole.price()
            estimate = self.whole.estimate(self.run, price, bound, self.tree)
            return price, self.whole.spending.reserve(estimate, self._write, lambda: None).hold
        except PriceUnknown:
            raise NoVectors("price_unknown") from None
        except BudgetExceeded as error:
            raise NoVectors("cap_reached", error.detail) from None
        except AgentStopped:
            raise NoVectors("agent_stopped") from None

    def _write(self, *works: WriteInTransaction) -> None:
        self.whole.db.transact(lambda tx: [work(tx) for work in works], patience=PATIENCE)

    def _settle(self, hold: Hold, price: Price, bound: int, answer: Embedded) -> None:
        settlement = self._settlement(hold, price, bound, answer)
        try:
            self._write(settlement.work)
        except DatabaseUnavailable:  # the sweep settles it
            log.warning("embedding_not_settled", extra={"hold": hold.id, "run_id": hold.run_id})
        self.spent(settlement.cost, settlement.source)

    def _settlement(self, hold: Hold, price: Price, bound: int, answer: Embedded) -> Settlement:
        """Settle to the tokens reported, and at most to the hold."""
        spending = self.whole.spending
        if answer.tokens is not None:
            if answer.tokens <= bound:
                return spending.settle(hold, price, Usage(answer.tokens))
            log.warning("usage_implausible", extra={"hold": hold.id, "reported": answer.tokens})
            return spending.settle_worst(hold)
        if answer.vectors is not None:
            return spending.settle(hold, price, Usage(bound), "estimate")
        return spending.settle_worst(hold) if answer.billable else spending.settle_unused(hold)


def build(endpoint: HttpEmbedder | None, infra: Infra, money: UsageServices) -> Embeddings | None:
    """Build the embeddings of an endpoint, if one is set."""
    return None if endpoint is None else Embeddings(endpoint, money.prices, money.impatient, infra.db)


def _indexing(workspace_id: str, agent: str) -> Run:
    return Run("", workspace_id, agent, "", "", RunRequest(agent, ()), workspace_id=workspace_id)
