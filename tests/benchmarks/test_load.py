"""The load generator counts right, and takes nothing but a whole, good answer for one."""

from __future__ import annotations

import pytest

from benchmarks import load
from benchmarks.upstream import Wish
from tests.benchmarks.conftest import Upstream


def test_load_sends_the_requested_number_of_requests(upstream: Upstream) -> None:
    found = load.run(upstream.shot(Wish()), clients=7, requests=100)
    assert len(found.totals) == 100
    assert not found.errors
    assert found.firsts == []
    assert upstream.stats()["finished"] == 100
    assert upstream.stats()["most_open"] <= 7 + 1


def test_clients_are_there_at_once(upstream: Upstream) -> None:
    found = load.run(upstream.shot(Wish(wait=300)), clients=200, requests=200)
    assert len(found.totals) == 200
    assert upstream.stats()["most_open"] >= 200
    assert min(found.totals) >= 0.3  # the upstream's wait, never less


def test_a_stream_and_its_first_token(upstream: Upstream) -> None:
    shot = upstream.shot(Wish(deltas=20, every=5, first=50), stream=True)
    found = load.run(shot, clients=5, requests=10)
    assert len(found.totals) == len(found.firsts) == 10
    assert not found.errors
    # Deltas within two milliseconds go out together; and a machine that stands still may show all of a stream at once.
    pairs = list(zip(found.firsts, found.totals, strict=True))
    assert all(0.05 - 0.002 <= first <= total for first, total in pairs)
    assert any(first < total for first, total in pairs)
    assert min(found.totals) >= 0.05 + 19 * 0.005 - 0.002


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"pieces": 21}, "20 of 21 pieces"),
        ({"end": b"event: never"}, "without event: never"),
        ({"must": b"nonsense"}, "without nonsense"),
    ],
)
def test_an_answer_that_is_not_good_is_an_error(
    upstream: Upstream, changes: dict[str, object], fault: str
) -> None:
    shot = upstream.shot(Wish(deltas=20), stream=True, **changes)
    found = load.run(shot, clients=2, requests=4)
    assert found.totals == []
    assert found.errors == {fault: 4}


def test_late_answer_is_an_error(upstream: Upstream) -> None:
    found = load.run(upstream.shot(Wish(wait=10_000)), clients=2, requests=6, limit=0.3)
    assert found.totals == []
    assert found.errors == {"no answer in time": 2, "not sent in time": 4}


def test_refused_connection_is_an_error() -> None:
    shot = load.Shot(1, lambda _: b"GET / HTTP/1.1\r\n\r\n")
    assert load.run(shot, clients=1, requests=2).errors == {"ConnectionRefusedError": 2}


def judged(head: bytes, body: bytes = b"", whole: bool = True) -> str:
    call = load.Call()
    call.head, call.parts, call.whole = head, [body], whole
    return load.judge(call, load.Shot(0, lambda _: b""))


def test_how_an_answer_is_judged() -> None:
    assert judged(b"HTTP/1.1 200 OK") == ""
    assert judged(b"HTTP/1.1 200 OK", whole=False) == "cut off"
    assert judged(b"") == "connection lost"
    assert judged(b"HTTP/1.1 503 Service Unavailable", b'{"code":"overloaded"}') == "503 overloaded"
