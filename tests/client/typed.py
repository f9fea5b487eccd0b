"""Uses of the client as its users' type checkers see them: `make check` holds the types against this file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import assert_type

from slipway_client import (
    Approval,
    AsyncEventStream,
    AsyncSlipway,
    EventStream,
    Queued,
    Run,
    RunItem,
    RunResult,
    Slipway,
    UsageLine,
)


def synchronous(client: Slipway) -> None:
    assert_type(client.agents.invoke("support", "?", cache="bypass"), RunResult)
    assert_type(client.agents.invoke("support", "?").usage.cost_usd, Decimal)
    assert_type(client.agents.stream("support", "?"), EventStream)
    assert_type(client.tasks.create("support", "?", priority="batch"), Queued)
    assert_type(client.tasks.wait("run_1", timeout=5), Run)
    assert_type(client.runs.list(status="failed"), Iterator[RunItem])
    assert_type(client.approvals.approve("apr_1", digest="sha256:"), Approval)
    assert_type(client.usage.report("agent", "day"), Iterator[UsageLine])


async def asynchronous(client: AsyncSlipway) -> None:
    assert_type(await client.agents.invoke("support", "?"), RunResult)
    assert_type(client.agents.stream("support", "?"), AsyncEventStream)
    assert_type(await client.tasks.wait("run_1"), Run)
    assert_type(client.runs.list(), AsyncIterator[RunItem])


def refused(client: Slipway, other: AsyncSlipway) -> None:
    """Each line is an error, or its comment would be one."""
    client.agents.invoke("support", "?", cach="bypass")  # type: ignore[call-arg]
    client.agents.invoke("support")  # type: ignore[call-arg]
    client.runs.list(status="finished")  # type: ignore[arg-type]
    _ = other.agents.invoke("support", "?").output  # type: ignore[attr-defined]
