"""A model that takes a request over a kept connection and closes it without a byte: each try is held and paid."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.errors import SlipwayError
from service.store.schema import ledger
from service.usage.ledger import check
from service.wiring import Services
from tests.conftest import RedisServer
from tests.llm.wire_server import MESSAGE, Exchange, WireServer, end, start, stream, text_events, whole
from tests.runs.inside import ADA, request, services

CAP_NANO = 12 * 100_000  # some dozen of calls, at their worst


@pytest.fixture
def closing() -> Iterator[WireServer]:
    """Answers the first request of each connection; the second it reads, and closes."""
    answered: set[int] = set()

    def answer(exchange: Exchange) -> None:
        if id(exchange.conn) in answered:
            return exchange.close()
        answered.add(id(exchange.conn))
        streamed = exchange.json.get("stream")
        (stream([start(), *text_events("Good day."), *end()]) if streamed else whole(MESSAGE))(exchange)

    server = WireServer(answer)
    yield server
    server.stop()


@pytest.fixture
def wired(tmp_path: Path, redis_server: RedisServer, closing: WireServer) -> Iterator[Services]:
    with services(tmp_path, redis_server.url, closing.url) as made:
        yield made


@pytest.mark.parametrize("door", ["invoke", "stream"])
def test_each_call_the_model_received_was_held_and_is_paid(
    wired: Services, closing: WireServer, door: str
) -> None:
    wired.usage.budgets.put(f"user:{ADA.user_id}", "day", CAP_NANO)
    for _ in range(20):  # until the cap says no
        try:
            asked = request("What time is it?", tier="simple", cache="bypass", max_tokens=100)
            if door == "invoke":
                wired.runs.start.invoke(ADA, asked, None, "req")
            else:
                started, told = wired.runs.start.stream(ADA, asked, None, "req")
                for _ in told:
                    pass
                assert started.place is not None
                started.place.give()
        except SlipwayError as error:
            assert error.code == "budget_exceeded"
    rows = wired.infra.db.query(lambda tx: tx.rows(sa.select(ledger).where(ledger.c.account == "upstream")))
    paid = [row for row in rows if row["basis"] != "nothing"]
    calls = [one for one in closing.requests if one.head.startswith(b"POST /v1/messages ")]
    assert len(calls) == len(paid) > 4
    assert {row["basis"] for row in paid} == {"exact", "worst"}
    assert sum(row["amount_nano"] for row in paid) <= CAP_NANO
    assert check(wired.infra.db, wired.usage.prices).faults == []
