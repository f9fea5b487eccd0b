"""Cap of a schedule: the most that one of its runs may cost, held before each call."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from service.errors import BudgetExceeded
from service.store.schema import ledger
from service.types import NANO
from tests.conftest import Model, RedisServer
from tests.runs import inside


@pytest.mark.parametrize(("cap", "status"), [(10, "failed"), (NANO, "succeeded")])
def test_run_spends_no_more_than_its_cap(
    tmp_path: Path, redis_server: RedisServer, model: Model, cap: int, status: str
) -> None:
    model.reset()
    with inside.services(tmp_path, redis_server.url, model.url) as services:
        request = inside.request("What time is it?", cap_nano=cap, schedule_id="sch_1", door="schedule/task")
        started = services.runs.start.queue(inside.ADA, request, None, "req")
        services.runs.execution.take_up(started.run.id)
        run = services.runs.queries.get(started.run.id)
        assert run.status == status and run.request.cap_nano == cap
        spent = services.infra.db.query(
            lambda tx: tx.rows(sa.select(ledger.c.amount_nano).where(ledger.c.account == "upstream"))
        )
        if status == "failed":
            assert run.error is not None and run.error["code"] == BudgetExceeded.code
            assert run.error["budget"]["scope"] == "run" and run.error["budget"]["amount_usd"] == "0.000001"
            assert spent == [] and model.stats()["calls"] == 0
        else:
            assert 0 < run.cost_nano <= cap and len(spent) == 1


def test_lower_of_both_bounds_holds(tmp_path: Path, redis_server: RedisServer, model: Model) -> None:
    settings = {"budget_run_usd": "0.5"}
    with inside.services(tmp_path, redis_server.url, model.url, **settings) as services:
        spending = services.usage.spending
        for cap, left in ((NANO, NANO // 2), (NANO // 10, NANO // 10), (None, NANO // 2)):
            request = inside.request("What time is it?", cap_nano=cap, door="schedule/task")
            run = services.runs.start.queue(inside.ADA, request, None, "req").run
            assert spending.remaining_budget(services.runs.queries.get(run.id)) == left
