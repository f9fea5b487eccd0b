"""Name look-up under a resolver that is slow, silent or wrong: the look-up itself is replaced, the waits are real."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from service.infra import dns
from service.infra.dns import Resolver
from tests.exhausted import no_threads

FOUND = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 443))] * 2


class Names:
    """Stands for `getaddrinfo`: silent until `speak` is set."""

    def __init__(self) -> None:
        self.speak = threading.Event()
        self.asked: list[str] = []
        self.error: OSError | None = None

    def __call__(self, host: str, port: int, **_: object) -> list[Any]:
        self.asked.append(host)
        assert self.speak.wait(20)
        if self.error is not None:
            raise self.error
        return FOUND


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names)
    yield names
    names.speak.set()


def test_an_address_needs_no_look_up(names: Names) -> None:
    resolver = Resolver()
    assert resolver.addresses("127.0.0.1", 80, 1) == [(socket.AF_INET, ("127.0.0.1", 80))]
    assert resolver.addresses("::1", 80, 1) == [(socket.AF_INET6, ("::1", 80, 0, 0))]
    assert names.asked == []


def test_silent_resolver_blocks_no_caller_and_few_threads(names: Names) -> None:
    resolver = Resolver(threads=2)
    for _ in range(5):
        for host in ("one.example", "two.example", "three.example"):
            with pytest.raises(TimeoutError):
                resolver.addresses(host, 443, 0.01)
    assert names.asked == ["one.example", "two.example"]
    names.speak.set()
    assert resolver.addresses("three.example", 443, 5) == [(socket.AF_INET, ("192.0.2.7", 443))]


def test_stopped_caller_stops_waiting(names: Names) -> None:
    with pytest.raises(TimeoutError):
        Resolver().addresses("one.example", 443, 3600, stopped=lambda: True)


def test_a_result_is_used_again_for_a_while(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    names.speak.set()
    resolver = Resolver()
    for _ in range(3):
        resolver.addresses("one.example", 443, 5)
    assert names.asked == ["one.example"]
    monkeypatch.setattr(dns, "KEEP_SECONDS", -1.0)
    for _ in range(2):
        resolver.addresses("two.example", 443, 5)
    assert names.asked == ["one.example", "two.example", "two.example"]


@pytest.mark.parametrize("error", [socket.gaierror(-2, "no such name"), OSError("no files left")])
def test_failed_look_up_is_raised_and_not_cached(names: Names, error: OSError) -> None:
    names.speak.set()
    names.error = error
    resolver = Resolver()
    for _ in range(2):
        with pytest.raises(type(error)):
            resolver.addresses("one.example", 443, 5)
    assert len(names.asked) == 2


def test_names_that_are_kept_are_bounded(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "KEEP_NAMES", 3)
    names.speak.set()
    resolver = Resolver()
    for number in range(10):
        resolver.addresses(f"host{number}.example", 443, 5)
    assert len(resolver._cache) <= 3
    assert len(names.asked) == 10


def test_invalid_host_name_is_a_look_up_error() -> None:
    with pytest.raises(socket.gaierror):
        Resolver().addresses("a" * 70 + ".example", 443, 5)


def test_thread_that_cannot_start_is_not_counted(names: Names) -> None:
    names.speak.set()
    resolver = Resolver(threads=1)
    with no_threads(), pytest.raises(RuntimeError):
        resolver.addresses("agents.example.com", 443, 5)
    assert resolver.addresses("agents.example.com", 443, 5)
