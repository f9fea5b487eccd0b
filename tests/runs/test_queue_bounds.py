"""Bounds on waiting runs: of one user 429, of all 503; a request that is sent again is answered at the bound too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.errors import Overloaded, RateLimited
from service.ids import new_id
from service.runs import queue_bounds
from service.runs.idempotency import Key
from service.store.schema import runs
from service.types import Caller, Run, RunStatus
from service.wiring import Services
from tests.made import NOWHERE, app_in, close
from tests.runs import inside
from tests.runs.queueing import add_users, queue
from tests.usage.conftest import postgres_url, url

__all__ = ["postgres_url", "url"]
BOB = Caller("usr_bob", "bob", "user")
Make = Callable[..., Services]


@pytest.fixture
def bounded(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setattr(queue_bounds, "COUNT_SECONDS", 0.0)
    no_redis = f"unix://{tmp_path}/no-redis.sock"
    with ExitStack() as stack:

        def make(**settings: int) -> Services:
            made = inside.services(tmp_path, no_redis, NOWHERE, database_url=url, **settings)
            services = stack.enter_context(made)
            add_users(services.infra.db, ["bob"])
            return services

        yield make


def ask(services: Services, caller: Caller = inside.ADA, key: Key | None = None) -> Run:
    return services.runs.start.queue(caller, inside.request("Do it."), key, "req").run


def mark(services: Services, run: Run, **values: object) -> None:
    with services.infra.db.begin() as tx:
        tx.execute(sa.update(runs).where(runs.c.id == run.id).values(**values))


def test_a_user_has_a_bounded_number_of_waiting_runs(bounded: Make) -> None:
    services = bounded(limit_queued_runs=2)
    first, second = ask(services), ask(services)
    mark(services, first, status=RunStatus.WAITING_BUDGET)
    mark(services, second, in_line=False)
    with pytest.raises(RateLimited, match="2 runs waiting") as refused:
        ask(services)
    assert refused.value.retry_after is not None
    ask(services, BOB)
    mark(services, second, status=RunStatus.RUNNING)
    ask(services)


def test_all_users_together_have_a_bounded_number(bounded: Make) -> None:
    services = bounded(max_queued_runs=3)
    queue(services.infra.db, "bob", 2)
    ask(services)
    for caller in (inside.ADA, BOB):
        with pytest.raises(Overloaded):
            ask(services, caller)


def test_a_request_that_is_sent_again_finds_its_run(bounded: Make) -> None:
    services = bounded(limit_queued_runs=1)
    key = Key(inside.ADA.user_id, new_id("req"), "digest")
    first = ask(services, key=key)
    assert ask(services, key=key).id == first.id


def test_none_is_no_bound(bounded: Make) -> None:
    services = bounded(limit_queued_runs=None)
    for _ in range(5):
        ask(services)


def test_refusals_over_http_tell_when_to_try_again(tmp_path: Path) -> None:
    for name, status, code in (
        ("LIMIT_QUEUED_RUNS", 429, "rate_limited"),
        ("MAX_QUEUED_RUNS", 503, "overloaded"),
    ):
        (tmp_path / name).mkdir()
        app = app_in(tmp_path / name, **{name: "1"})
        try:
            client = app.test_client()
            login = client.post(
                "/v1/auth/login", json={"username": "demo", "password": "demo-password"}
            ).get_json()
            headers = {"Authorization": f"Bearer {login['access_token']}"}
            answers = [
                client.post("/v1/agents/assistant/tasks", json={"input": "Hi."}, headers=headers)
                for _ in range(2)
            ]
            assert [answer.status_code for answer in answers] == [202, status]
            assert answers[1].get_json()["code"] == code
            assert int(answers[1].headers["Retry-After"]) >= 1
        finally:
            close(app)
