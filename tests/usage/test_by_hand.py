"""Cost of calls of every kind, from the door to the ledger, beside a table worked out by hand.

The tokens are those that the model reported (its own count stands beside ours in `test_routes.py`), the dollars are
the published tariffs, written out here and not read from the price table: USD 1 per million is 1,000 nano a token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import sqlalchemy as sa

from service.store import batches, holds
from service.store.schema import batches as batch_rows
from service.store.schema import ledger
from service.types import Usage
from service.usage.ledger import check
from service.wiring import Services
from tests.conftest import Model, RedisServer, model_server, wait_until
from tests.runs.inside import ADA, SINGLE, ask, request, services

# Prompts of known length, without a marker.
PLAIN = f"{SINGLE}\nprompt_secret: false\n"
SUMS = "description: Sums.\npattern: react\ntools: [calculator]\nprompt_secret: false\n"
LONG_PROMPT = "You answer questions about Harbor, the file sync for teams, and you are exact. " * 90


class Line(NamedTuple):
    """One settlement, in nano-dollars."""

    model: str
    usage: Usage
    nano: int
    basis: str = "exact"


@pytest.fixture
def wired(tmp_path: Path, redis_server: RedisServer, model: Model) -> Iterator[Services]:
    model.reset()
    agents = {"probe": PLAIN, "sums": SUMS}
    with services(tmp_path, redis_server.url, model.url, agents, batch_max_wait_seconds=0) as made:
        yield made
        assert check(made.infra.db, made.usage.prices).faults == [] and made.infra.db.query(holds.every) == []
    model.reset()


def booked(wired: Services) -> list[Line]:
    rows = wired.infra.db.query(
        lambda tx: tx.rows(sa.select(ledger).where(ledger.c.account == "upstream").order_by(ledger.c.at))
    )
    return [
        Line(
            row["model"],
            Usage(
                row["input_tokens"],
                row["output_tokens"],
                row["cache_read_tokens"],
                row["cache_creation_tokens"],
                row["cache_creation_1h_tokens"],
                row["server_tool_requests"],
            ),
            row["amount_nano"],
            row["basis"],
        )
        for row in rows
    ]


def streamed(wired: Services, text: str, **fields: str) -> None:
    _, told = wired.runs.start.stream(ADA, request(text, **fields), None, "req")
    for _ in told:
        pass


def invoked(wired: Services, model: Model) -> None:
    model.control(tokens=40)
    assert ask(wired, tier="simple").error is None


def streamed_whole(wired: Services, model: Model) -> None:
    model.control(tokens=40)
    streamed(wired, "What time is it?", tier="medium")


def tiered(wired: Services, model: Model) -> None:
    """One prompt of more than 100,000 tokens, which Haiku takes at five times the price."""
    model.control(tokens=40)
    assert ask(wired, "All work and no play. " * 20_000, tier="simple").error is None


def complex_tier(wired: Services, model: Model) -> None:
    model.control(tokens=40)
    assert ask(wired, tier="complex").error is None


def batched(wired: Services, model: Model) -> None:
    model.control(tokens=40)
    run = wired.runs.start.queue(
        ADA, request("What time is it?", priority="batch", tier="medium"), None, "req"
    ).run
    assert wired.runs.execution.take_up(run.id)

    def answered() -> bool:
        wired.infra.db.transact(lambda tx: tx.execute(sa.update(batch_rows).values(next_at=0)))
        wired.runs.batches.tick()
        row = wired.infra.db.query(lambda tx: batches.get(tx, run.id, 1))
        return row is not None and row["state"] == "done"

    wait_until(answered, "the answer")
    assert wired.runs.execution.take_up(run.id) and wired.runs.queries.get(run.id).status == "succeeded"


def cut_off(wired: Services, model: Model) -> None:
    """Half of 40 words come, and no usage after the first: what came out is counted."""
    model.control(tokens=40, fault="drop", times=1)
    streamed(wired, "What time is it?", tier="medium")


def with_a_tool(wired: Services, model: Model) -> None:
    """The call that asks for the tool, and the one that reads its result."""
    assert ask(wired, "What is 17% of 2,340?", agent="sums", tier="medium").error is None


@pytest.mark.parametrize(
    ("call", "table"),
    [
        # Haiku: 9 in at 100, 40 out at 500
        (invoked, [Line("claude-haiku-5-5", Usage(9, 40), 900 + 20_000)]),
        # Sonnet: 9 in at 2,000, 40 out at 10,000
        (streamed_whole, [Line("claude-sonnet-5-5", Usage(9, 40), 18_000 + 400_000)]),
        # Opus: 9 in at 4,000, 40 out at 20,000
        (complex_tier, [Line("claude-opus-5-5", Usage(9, 40), 36_000 + 800_000)]),
        # Haiku above 100,000 tokens: 110,005 in at 500, 40 out at 2,500
        (tiered, [Line("claude-haiku-5-5", Usage(110_005, 40), 55_002_500 + 100_000)]),
        # Half of Sonnet: 9 in at 1,000, 35 out at 5,000
        (batched, [Line("claude-sonnet-5-5", Usage(9, 35), 9_000 + 175_000)]),
        # 9 in as its start said. 48 bytes came out, so many tokens at most, and 64 may have been on their way
        (cut_off, [Line("claude-sonnet-5-5", Usage(9, 112), 18_000 + 1_120_000, "estimate")]),
        # 145 in and 10 out to ask for the tool; 192 in, its result among them, and 11 out
        (
            with_a_tool,
            [
                Line("claude-sonnet-5-5", Usage(145, 10), 290_000 + 100_000),
                Line("claude-sonnet-5-5", Usage(192, 11), 384_000 + 110_000),
            ],
        ),
    ],
)
def test_calls_cost_the_amounts_of_the_table(
    wired: Services, model: Model, call: Callable[[Services, Model], None], table: list[Line]
) -> None:
    call(wired, model)
    assert booked(wired) == table


def test_cached_prompt_costs_a_quarter_more_once_and_then_a_twentieth(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    with (
        model_server() as model,
        services(tmp_path, redis_server.url, model.url, {"probe": PLAIN}, prompt=LONG_PROMPT) as wired,
    ):
        model.control(tokens=40)
        for _ in range(2):
            assert ask(wired, tier="medium", cache="bypass").error is None
        # 7 in at 2,000, 40 out at 10,000; the prompt written at 2,500, then read at 100
        written, read = 14_000 + 400_000 + 1_778 * 2_500, 14_000 + 400_000 + 1_778 * 100
        assert booked(wired) == [
            Line("claude-sonnet-5-5", Usage(7, 40, 0, 1_778), written),
            Line("claude-sonnet-5-5", Usage(7, 40, 1_778), read),
        ]
