"""Billing of one model call: held with the start of its step, settled with its end or where it breaks off."""

from __future__ import annotations

from typing import Any

import pytest

from service.errors import BudgetExceeded
from service.llm.client import CallProgress, ModelReply, ModelRequest
from service.runs.attempt import Attempt
from service.runs.billing import CallBilling
from service.runs.journal import Journal
from service.runs.slots import Handle
from service.store import runs as rows
from service.store import users
from service.store.database import Transaction
from service.types import NANO, Usage, now_ms
from tests.runs.house import ADA, asked, run_of
from tests.usage.conftest import Make, make, postgres_url, url
from tests.usage.house import SONNET

__all__ = ["make", "postgres_url", "url"]
REQUEST = ModelRequest(SONNET.model, [{"role": "user", "content": "Hello"}], max_tokens=800)
USED = Usage(input_tokens=10, output_tokens=100)


class Till:
    """One run's billing of one call, over an empty database whose user may spend `cap` nano-dollars."""

    def __init__(self, make: Make, cap: int = NANO) -> None:
        self.house = make(user_day=cap, patience=0.0)
        self.run = run_of(asked("Hello"))
        self.run.attempt = 1
        self.journal = Journal(self.house.db, self.run, lambda events: None, opening=self._open)
        attempt = Attempt(self.run, self.journal, Handle(self.run.id, 60))
        self.billing = CallBilling(self.house.spending, attempt, lambda request, call: 10, SONNET)

    def _open(self, tx: Transaction) -> bool:
        ada = {"id": ADA.user_id, "username": "ada", "password_hash": "", "role": "user"}
        users.insert(tx, {**ada, "created_at": now_ms()})
        return rows.insert(tx, self.run, worker_id=None)

    @property
    def figures(self) -> tuple[int, int]:
        """Nano-dollars spent and held of the user's day."""
        return self.house.figures("user:usr_ada")


def reply(usage: Usage = USED, **fields: Any) -> ModelReply:
    return ModelReply(SONNET.model, [{"type": "text", "text": "Hi."}], "end_turn", usage, **fields)


def test_call_is_held_with_the_start_of_its_step_and_settled_with_the_end(make: Make) -> None:
    till = Till(make)
    request, _ = till.billing.reserve(REQUEST)
    spent, held = till.figures
    assert till.journal.opened and request == REQUEST and (spent, held) == (0, held) and held > 0
    booked, cost = till.billing.settle(request, reply())
    assert till.figures == (0, held)  # not before the step is kept
    till.journal.commit()
    assert (booked.usage, cost) == (USED, SONNET.cost(USED)) and till.figures == (cost, 0)


def test_implausible_usage_is_settled_to_the_hold(make: Make) -> None:
    till = Till(make)
    request, _ = till.billing.reserve(REQUEST)
    _, held = till.figures
    booked, cost = till.billing.settle(request, reply(Usage(10, 10_000)))
    till.journal.commit()
    assert (cost, booked.usage_source) == (held, "worst") and till.figures == (held, 0)


@pytest.mark.parametrize("outcome", ["refused", "billable", "partial"])
def test_interrupted_call_is_settled_to_its_possible_usage(make: Make, outcome: str) -> None:
    till = Till(make)
    request, _ = till.billing.reserve(REQUEST)
    _, held = till.figures
    usage, text = (Usage(10, 1), "Some words") if outcome == "partial" else (None, "")
    till.billing.settle_failed(request, CallProgress(outcome != "refused", usage, text))
    till.journal.commit()
    spent, left = till.figures
    assert left == 0 and spent == till.run.cost_nano
    assert {"refused": spent == 0, "billable": spent == held, "partial": 0 < spent < held}[outcome]


def test_retry_after_a_billable_attempt_is_held_in_addition(make: Make) -> None:
    till = Till(make)
    request, _ = till.billing.reserve(REQUEST)
    _, held = till.figures
    till.billing.reserve_again(request, CallProgress(billable=True))
    assert till.figures == (held, held)


def test_cap_shortens_the_answer_unless_it_must_be_whole(make: Make) -> None:
    till = Till(make, cap=NANO // 250)
    with pytest.raises(BudgetExceeded):
        till.billing.reserve(REQUEST, whole=True)
    request, _ = till.billing.reserve(REQUEST)
    assert 64 <= request.max_tokens < REQUEST.max_tokens
