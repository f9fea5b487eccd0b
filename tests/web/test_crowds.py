"""Health checks, log-ins and cache hits are answered beside any number of followers, waiters and runs."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.conftest import Model, RedisServer, Slipway, slipway_server, wait_until
from tests.web.people import join

CLERK = """\
description: Asks before it reads, for tests
pattern: react
tier: {default: simple}
tools: [calculator]
approvals: [calculator]
"""
MANY = 60  # far more than there are threads


@pytest.fixture(scope="module")
def slipway(scratch: Path, redis_server: RedisServer, model: Model) -> Iterator[Slipway]:
    """One process of few threads: whoever holds them all is noticed."""
    home = scratch / "crowds"
    for name, spec in (
        ("clerk", CLERK),
        ("probe", "description: For tests\npattern: single\ncache: {ttl_seconds: 600}\n"),
    ):
        folder = home / "agents" / name
        folder.mkdir(parents=True)
        (folder / "agent.yaml").write_text(spec)
        (folder / "prompt.md").write_text("Be good.")
    settings = {
        "AGENTS_DIR": str(home / "agents"),
        "WEB_CONCURRENCY": "1",
        "THREADS": "16",
        "LIMIT_CONCURRENT_RUNS": "6",
        "LIMIT_LOGIN": "1000/minute",
        "RUN_TIMEOUT": "20",
    }
    with slipway_server(home, redis_server.url, model.url, **settings) as server:
        yield server


@pytest.fixture
def admin(slipway: Slipway, model: Model) -> Iterator[httpx2.Client]:
    model.reset()
    with closing(slipway.client()) as client:
        yield client
    model.reset()


@pytest.fixture
def other(slipway: Slipway, admin: httpx2.Client) -> Iterator[httpx2.Client]:
    """Another user, with an answer in the cache."""
    with closing(join(slipway, admin)) as client:
        assert client.post("/v1/agents/probe/invoke", json={"input": "What time is it?"}).status_code == 200
        yield client


def assert_others_are_served(slipway: Slipway, other: httpx2.Client) -> None:
    assert httpx2.get(f"{slipway.url}/health", timeout=20).status_code == 200
    hit = other.post("/v1/agents/probe/invoke", json={"input": "What time is it?"})
    assert (hit.status_code, hit.headers["X-Cache"]) == (200, "hit")
    slipway.client().close()  # a log-in


@contextmanager
def opened(client: httpx2.Client, count: int, method: str, path: str, **body: object) -> Iterator[list[int]]:
    """So many streams at once, and their statuses."""
    with ExitStack() as stack:

        def one(_: int) -> int:
            return stack.enter_context(client.stream(method, path, **body)).status_code  # type: ignore[arg-type]

        with ThreadPoolExecutor(count) as pool:
            yield list(pool.map(one, range(count)))


def begun(client: httpx2.Client, stack: ExitStack) -> str:
    """The id of a run that goes on for long."""
    body = {"input": "[offline tokens=400 token_ms=50] A long answer, please.", "cache": "bypass"}
    stream = stack.enter_context(client.stream("POST", "/v1/agents/probe/stream", json=body))
    return next(stream.iter_text()).split("id: ")[1].split(":")[0]


def test_followers_of_one_user(slipway: Slipway, admin: httpx2.Client, other: httpx2.Client) -> None:
    with ExitStack() as stack:
        run_id = begun(admin, stack)
        with opened(admin, MANY, "GET", f"/v1/runs/{run_id}/events") as statuses:
            assert Counter(statuses) == {200: 6, 429: MANY - 6}  # the seventh place, of 14, is the run's
            assert_others_are_served(slipway, other)
            assert admin.post(f"/v1/runs/{run_id}/cancel").status_code == 202


def test_followers_of_many_users(slipway: Slipway, admin: httpx2.Client, other: httpx2.Client) -> None:
    """Readers have half of the places: the other half is left for runs."""
    with ExitStack() as stack:
        people = [stack.enter_context(closing(join(slipway, admin))) for _ in range(3)]
        runs = [(person, begun(person, stack)) for person in people]
        statuses = Counter[int]()
        for person, run_id in runs:
            path = f"/v1/runs/{run_id}/events"
            statuses.update(stack.enter_context(opened(person, 8, "GET", path)))
        assert statuses[200] == 7 and set(statuses) == {200, 429, 503}
        assert_others_are_served(slipway, other)
        fresh = other.post("/v1/agents/probe/invoke", json={"input": "A new question?", "cache": "bypass"})
        assert fresh.status_code == 200
        for person, run_id in runs:
            assert person.post(f"/v1/runs/{run_id}/cancel").status_code == 202


def test_streams_whose_runs_wait_for_a_person(
    slipway: Slipway, admin: httpx2.Client, other: httpx2.Client
) -> None:
    body = {"input": 'Call the calculator tool with "1+1".'}
    for _ in range(20):
        stream = admin.post("/v1/agents/clerk/stream", json=body)
        assert "event: approval.required" in stream.text and "event: reconnect" in stream.text
    waiting = admin.get("/v1/approvals?status=pending&limit=100").json()["data"]
    assert len(waiting) == 20
    for approval in waiting:
        assert "event: reconnect" in admin.get(f"/v1/runs/{approval['run_id']}/events").text
    assert_others_are_served(slipway, other)


def test_more_runs_than_a_user_may_have(slipway: Slipway, admin: httpx2.Client, other: httpx2.Client) -> None:
    body = {"input": "[offline tokens=400 token_ms=50] A long answer.", "cache": "bypass"}
    with opened(admin, MANY, "POST", "/v1/agents/probe/stream", json=body) as statuses:
        assert Counter(statuses) == {200: 6, 429: MANY - 6}
        assert_others_are_served(slipway, other)
        for run in admin.get("/v1/runs?status=running").json()["data"]:
            assert admin.post(f"/v1/runs/{run['run_id']}/cancel").status_code == 202


def test_equal_questions_wait_without_being_runs(
    slipway: Slipway, admin: httpx2.Client, model: Model
) -> None:
    """Each of them waits for one answer: as many as one user has places."""
    model.control(first_token_ms=800)
    with ThreadPoolExecutor(6) as pool:
        answers = list(
            pool.map(lambda _: admin.post("/v1/agents/probe/invoke", json={"input": "Equal?"}), range(6))
        )
    assert {answer.status_code for answer in answers} == {200}
    assert Counter(answer.headers["X-Cache"] for answer in answers) == {"miss": 1, "coalesced": 5}


def test_a_database_that_hangs_leaves_the_health_check(slipway: Slipway, admin: httpx2.Client) -> None:
    """Writers wait for it, more than there are threads; those beyond are refused at once."""
    locked = sqlite3.connect(slipway.env["SLIPWAY_HOME"] + "/slipway.db", isolation_level=None)
    with closing(locked), ThreadPoolExecutor(MANY) as pool:
        locked.execute("BEGIN IMMEDIATE")
        asked = [pool.submit(admin.post, "/v1/sessions", json={"agent": "probe"}) for _ in range(MANY)]
        wait_until(lambda: sum(one.done() for one in asked) >= MANY - 16, "the refusals")
        for _ in range(5):
            assert httpx2.get(f"{slipway.url}/health", timeout=20).status_code == 200
        locked.execute("ROLLBACK")
        statuses = Counter(one.result(30).status_code for one in asked)
    assert set(statuses) <= {201, 503, 429} and statuses[503] >= MANY - 16
