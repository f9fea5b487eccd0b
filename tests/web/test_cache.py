"""The answer cache at the doors: what it says, what it costs, and what it asks of Redis and the database."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis
import sqlalchemy
from flask.testing import FlaskClient

from service.app import create_app
from service.types import Caller, Event, RunEvent, new_id
from service.wiring import Services
from tests.conftest import Model, RedisServer, Slipway, wait_until
from tests.runs import inside
from tests.web.test_doors import events_of

LETTERS = str.maketrans("0123456789_", "abcdefghijk")
BOB = Caller("usr_bob", "bob", "user")
CACHED = (
    f"{inside.SINGLE}limits: {{steps: 1, seconds: 20}}\ncache: {{ttl_seconds: %d, stale: true, shared: %s}}\n"
)
AGENTS = {
    "probe": CACHED % (600, "false"),
    "brief": CACHED % (1, "false"),
    "shared": CACHED % (600, "true"),
}


class House:
    """A Slipway in this process, with ada signed in."""

    def __init__(self, wired: Services, model: Model) -> None:
        self.wired = wired
        self.model = model
        self.app = create_app(wired.settings, wired)
        ada = wired.auth.users.by_name("ada")
        assert ada is not None
        self.token = wired.auth.tokens.begin(ada).access_token

    @property
    def client(self) -> FlaskClient:
        client = self.app.test_client()
        client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {self.token}"
        return client

    def ask(self, text: str, door: str = "invoke", agent: str = "probe", **options: Any) -> Any:
        """The answer, read to its end here, as a server would: to read a stream is to drive its run."""
        path = f"/v1/agents/{agent}/{door}"
        return self.client.post(path, json={"input": text}, buffered=True, **options)


@pytest.fixture(scope="module")
def standing(
    tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer, model: Model
) -> Iterator[House]:
    home: Path = tmp_path_factory.mktemp("cache")
    settings: dict[str, Any] = {"model_retries": 0, "threads": 64, "limit_runs": "100000/minute"}
    with inside.services(home, redis_server.url, model.url, AGENTS, **settings) as wired:
        yield House(wired, model)


@pytest.fixture
def house(standing: House) -> Iterator[House]:
    standing.model.reset()
    yield standing
    standing.model.reset()


@pytest.fixture
def text() -> str:
    """Asked nowhere else. Without digits: many of them make the cheap model be asked for the tier."""
    return f"What about {new_id('x').translate(LETTERS)}?"


def test_a_near_question_costs_nothing(house: House, text: str) -> None:
    first = house.ask(text)
    near = house.ask(f"  Hi, {text.rstrip('?')} please ")
    assert [answer.headers["X-Cache"] for answer in (first, near)] == ["miss", "near"]
    assert (
        near.headers["X-Cost-USD"]
        == near.json["usage"]["cost_usd"]
        == "0.000000"
        != first.headers["X-Cost-USD"]
    )
    assert near.json["cache"] == "near" and near.json["output"] == first.json["output"]
    assert near.json["run_id"] != first.json["run_id"]
    assert house.ask(f"{text} not").headers["X-Cache"] == "miss"
    assert house.model.stats()["calls"] == 2


def test_both_doors_keep_and_find_the_same_answers(house: House, text: str) -> None:
    told = events_of(house.ask(text, "stream").text)
    invoked = house.ask(text)
    again = house.ask(text.upper(), "stream")
    # The last event is told a moment before the answer is kept: asked within it, one waits for that.
    assert invoked.headers["X-Cache"] in ("hit", "coalesced")
    assert again.headers["X-Cache"] == "near"
    assert house.ask(text).headers["X-Cache"] == "hit"  # it is kept by now
    events = events_of(again.text)
    assert [name for _, name, _ in events] == ["run.started", "text.delta", "run.completed"]
    run_id = events[0][2]["run_id"]
    assert [event_id for event_id, _, _ in events] == [f"{run_id}:{number}" for number in (1, 2, 3)]
    result = events[-1][2]
    assert events[1][2]["text"] == result["output"] == invoked.json["output"] == told[-1][2]["output"]
    assert (result["cache"], result["usage"]["cost_usd"], result["run_id"]) == ("near", "0.000000", run_id)
    assert house.model.stats()["calls"] == 1


def test_a_hit_under_a_key_of_the_clients_own_is_kept(house: House, text: str) -> None:
    house.ask(text)
    for door in ("invoke", "stream"):
        key = {"Idempotency-Key": new_id("k")}
        first, second = (house.ask(text, door, headers=key) for _ in range(2))
        assert first.headers["X-Cache"] == "hit" and second.headers["Idempotency-Replayed"] == "true"
        if door == "stream":
            assert first.text == second.text
            run_id = events_of(first.text)[0][2]["run_id"]
        else:
            assert first.json == second.json
            run_id = first.json["run_id"]
        kept = events_of(house.client.get(f"/v1/runs/{run_id}/events").text)
        assert [name for _, name, _ in kept] == ["run.started", "text.delta", "run.completed"]


# --- while the model is away ------------------------------------------------------------------------


@pytest.mark.parametrize("door", ["invoke", "stream"])
def test_a_stale_answer_while_the_model_is_away(house: House, text: str, door: str) -> None:
    fresh = house.ask(text, agent="brief").json
    time.sleep(1.1)
    house.model.control(fault="503")
    for _ in range(8):  # until the breaker is open, and after
        answer = house.ask(text, door, agent="brief")
        result = answer.json if door == "invoke" else events_of(answer.text)[-1][2]
        assert (answer.status_code, result["cache"], result["output"]) == (200, "stale", fresh["output"])
    if door == "invoke":
        assert answer.headers["X-Cache"] == "stale"
    else:
        names = [name for _, name, _ in events_of(answer.text)]
        assert names[0] == "run.started" and names[-2:] == ["text.delta", "run.completed"]
    kept: Any = house.client.get(f"/v1/runs/{result['run_id']}").json
    assert (kept["status"], kept["cache"]) == ("succeeded", "stale")
    assert house.ask(f"{text} else", agent="brief").status_code == 503
    house.model.control()
    wait_until(
        lambda: house.ask(text, door, agent="brief").headers["X-Cache"] == "miss", "the model again", 10
    )


def test_a_stale_answer_is_no_answer_to_a_question_the_model_refuses(house: House, text: str) -> None:
    house.ask(text, agent="brief")
    time.sleep(1.1)
    house.model.control(fault="400")
    answer = house.ask(text, agent="brief")
    assert (answer.status_code, answer.json["code"]) == (502, "model_rejected")


def test_stale_answer_is_not_used_after_published_text(house: House, text: str) -> None:
    house.ask(text, agent="brief")
    time.sleep(1.1)
    house.model.control(fault="drop", token_ms=5)
    names = [name for _, name, _ in events_of(house.ask(text, "stream", agent="brief").text)]
    assert names[-1] == "run.failed" and "text.delta" in names


# --- many at once -----------------------------------------------------------------------------------


def test_many_at_once_make_one_call(house: House, text: str) -> None:
    house.model.control(first_token_ms=700, token_ms=10)
    with ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(house.ask, text, door) for door in ("invoke", "stream") * 10]
        answers = [future.result(30) for future in asked]
    assert house.model.stats()["calls"] == 1
    caches = Counter(answer.headers["X-Cache"] for answer in answers)
    assert caches == {"miss": 1, "coalesced": 19}
    outputs = set()
    for answer in answers:
        result = answer.json if answer.is_json else events_of(answer.text)[-1][2]
        assert result["status"] == "succeeded"
        outputs.add(result["output"])
        if answer.is_json and answer.headers["X-Cache"] == "coalesced":
            assert answer.headers["X-Cost-USD"] == result["usage"]["cost_usd"] == "0.000000"
    assert len(outputs) == 1


def test_concurrent_streams_of_a_caller_follow_one_run(house: House, text: str) -> None:
    """The same caller gets the very same run, so it can be resumed anywhere."""
    house.model.control(first_token_ms=300, token_ms=30)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(house.ask, text, "stream") for _ in range(4)]
        streams = [events_of(future.result(30).text) for future in asked]
    assert streams[0] == streams[1] == streams[2] == streams[3]
    assert sum(name == "text.delta" for _, name, _ in streams[0]) > 1
    assert house.client.get(f"/v1/runs/{streams[0][0][2]['run_id']}").status_code == 200


def told_to(house: House, caller: Caller, text: str, agent: str, **fields: Any) -> list[RunEvent]:
    _, batches = house.wired.runs.start.stream(
        caller, inside.request(text, agent=agent, **fields), None, "req"
    )
    return [event for batch in batches for event in batch]


def test_stream_of_another_user_shares_its_answer_only(house: House, text: str) -> None:
    house.model.control(first_token_ms=300, token_ms=20)
    tell = partial(told_to, house, text=text, agent="shared")
    with ThreadPoolExecutor(2) as pool:
        leading = pool.submit(tell, inside.ADA, metadata={"of": "ada"})
        wait_until(lambda: house.model.stats()["in_flight"], "the leader at the model", 10)
        theirs = pool.submit(tell, BOB, metadata={"of": "bob"}).result(30)
        mine = leading.result(30)
    assert house.model.stats()["calls"] == 1
    result = theirs[-1].data
    assert result["output"] == mine[-1].data["output"]
    assert (result["cache"], result["usage"]["cost_usd"]) == ("coalesced", "0.000000")
    assert result["metadata"] == {"of": "bob"}
    assert result["run_id"] != mine[-1].data["run_id"]
    assert [event.name for event in theirs] == [Event.RUN_STARTED, Event.TEXT_DELTA, Event.RUN_COMPLETED]


def test_disconnected_follower_or_owner_ends_no_other_request(house: House, text: str) -> None:
    """Not the one who follows, and not the one who leads, though it wanted its run cancelled then."""
    house.model.control(first_token_ms=500, token_ms=20)
    runs, queries, cancellation = house.wired.runs, house.wired.runs.queries, house.wired.runs.cancellation
    ask = partial(inside.request, text, agent="probe", on_disconnect="cancel")
    leader, leading = runs.start.stream(inside.ADA, ask(), None, "req")
    next(leading)
    with ThreadPoolExecutor(3) as pool:
        pool.submit(list, leading)
        staying = pool.submit(runs.start.invoke, inside.ADA, inside.request(text, agent="probe"), None, "req")
        gone, following = runs.start.stream(inside.ADA, ask(), None, "req")
        first = next(following)
        cancellation.client_gone(gone.run)
        assert (first, gone.run.cache) == ([], "coalesced") or first
        assert queries.get(leader.run.id).status == "running"
        cancellation.client_gone(leader.run)
        answer = staying.result(30).run
    assert answer.status == "succeeded" and answer.cache == "miss"  # it took the cancelled leader's place
    assert queries.get(leader.run.id).status == "cancelled"


def test_waiters_leave_threads_for_other_requests(house: House, text: str) -> None:
    bulkhead = house.wired.runs.bulkhead
    slots = (
        bulkhead.total - bulkhead.taken
    )  # streams that other tests began and did not read to their end have some
    house.model.control(first_token_ms=1500)
    with ThreadPoolExecutor(slots + 8) as pool:
        asked = [pool.submit(house.ask, text) for _ in range(slots + 8)]
        statuses = Counter(future.result(30).status_code for future in asked)
    assert statuses[503] in range(1, 9) and statuses[200] == slots + 8 - statuses[503]
    assert house.model.stats()["calls"] == 1


# --- what a hit asks for ----------------------------------------------------------------------------


@contextmanager
def commands_of(server: RedisServer) -> Iterator[Callable[[], list[str]]]:
    """Every command that clients send to Redis meanwhile; what scripts do inside it is no round trip."""
    with closing(redis.Redis.from_url(server.url)) as client, client.monitor() as monitor:  # type: ignore[no-untyped-call]
        seen: list[str] = []
        ended = threading.Event()

        def listen() -> None:
            for command in monitor.listen():
                if command["command"].startswith("PING end"):
                    ended.set()
                    return
                if command["client_type"] != "lua":
                    seen.append(command["command"])

        thread = threading.Thread(target=listen)
        thread.start()

        def so_far() -> list[str]:
            with closing(redis.Redis.from_url(server.url)) as other:
                other.execute_command("PING", "end")  # type: ignore[no-untyped-call]
            assert ended.wait(5)
            thread.join()
            return [line for line in seen if not line.startswith(("CLIENT", "PING", "HELLO", "INFO"))]

        yield so_far


@contextmanager
def statements_of(wired: Services) -> Iterator[list[str]]:
    """Every statement this thread sends to the database meanwhile."""
    seen: list[str] = []
    me = threading.get_ident()

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if threading.get_ident() == me:
            seen.append(statement)

    sqlalchemy.event.listen(wired.infra.db.engine, "before_cursor_execute", note)
    yield seen
    sqlalchemy.event.remove(wired.infra.db.engine, "before_cursor_execute", note)


@pytest.mark.parametrize("door", ["invoke", "stream"])
def test_a_hit_is_one_round_trip_and_no_sql(
    house: House, redis_server: RedisServer, text: str, door: str
) -> None:
    house.ask(text)
    trips = []
    for _ in range(5):  # now and then what is revoked is loaded again, in a thread beside the request
        house.ask(text, door)
        with commands_of(redis_server) as commands, statements_of(house.wired) as statements:
            answer = house.ask(text, door)
            trips.append(commands())
        assert answer.headers["X-Cache"] == "hit"
        assert statements == []
    fewest = min(trips, key=len)
    assert len(fewest) == 1, fewest


def test_a_hit_needs_no_database(house: House, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a real database stopped: `tests/chaos/test_parts_down.py`."""
    house.ask(text)

    def away(*_: object, **__: object) -> None:
        raise AssertionError("the database was asked")

    for name in ("query", "transact"):
        monkeypatch.setattr(house.wired.infra.db, name, away)
    for door in ("invoke", "stream"):
        assert house.ask(text, door).headers["X-Cache"] == "hit"


def test_over_gunicorn(client: httpx2.Client, slipway: Slipway, model: Model, text: str) -> None:
    """Over real workers: one call, and everybody's answer."""
    model.control(first_token_ms=800)
    with ThreadPoolExecutor(6) as pool:
        post = partial(client.post, "/v1/agents/assistant/invoke", json={"input": text})
        answers = list(pool.map(lambda _: post(), range(6)))
    assert [answer.status_code for answer in answers] == [200] * 6
    assert Counter(answer.headers["X-Cache"] for answer in answers)["miss"] == 1
    assert model.stats()["calls"] == 1
    metrics = client.get("/metrics").text
    assert 'slipway_cache_total{agent="assistant",result="coalesced"}' in metrics
    assert json.loads(answers[0].text)["output"] == json.loads(answers[-1].text)["output"]
