"""Whoever leads may not be lost: nobody would take the next request, and the worker would not end."""

from __future__ import annotations

import selectors
import socket
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest

from service.web.arrival import Connection
from service.web.worker import Leader, Worker
from tests.conftest import free_port, process, wait_until
from tests.wsgi.test_stalled import healthy

FAULTY = """
from itertools import count
from service.web.worker import Worker

class Faulty(Worker):
    turns = count(1)

    def _take_next(self, own):
        if next(self.turns) % 7 == 0:
            raise RuntimeError("this turn failed")
        super()._take_next(own)

bind = "127.0.0.1:{port}"
worker_class = Faulty
threads, keepalive, control_socket_disable, graceful_timeout = 2, 10, True, 30
"""


def test_a_turn_that_fails_costs_that_turn(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    (tmp_path / "conf.py").write_text(FAULTY.format(port=port))
    command = [sys.executable, "-m", "gunicorn", "-c", str(tmp_path / "conf.py"), "tests.wsgi.endless:app"]
    with log.open("wb") as out, process(command, stderr=out) as child:
        wait_until(lambda: healthy(port), "the server")
        for _ in range(20):
            wait_until(lambda: healthy(port), "the next leader")
        child.terminate()
        child.wait(20)  # the grace is 30
    assert "this turn failed" in log.read_text()


@pytest.fixture
def worker() -> Iterator[Worker]:
    """As much of one as there must be to take a connection."""
    worker = Worker.__new__(Worker)
    worker.cfg, worker.worker_connections = None, 10
    worker._change, worker._silent, worker._arrived = threading.Lock(), {}, deque()
    with selectors.DefaultSelector() as worker._poller:
        yield worker


def test_a_leader_may_look_for_the_silent_while_others_come_and_go(worker: Worker, restless: None) -> None:
    ours, theirs = socket.socketpair()
    conns = [Connection(None, ours, None, None) for _ in range(3)]
    for conn in conns:
        conn.watched = True
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            for conn in conns:
                worker._watch(conn)
            with worker._change:
                worker._silent.pop(conns[0], None)

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        for _ in range(100_000):
            worker._longest_silent()
            threading.get_ident()  # another thread's turn, perhaps
    finally:
        stop.set()
        other.join(20)
        ours.close()
        theirs.close()


class Closing:
    """A listener that the main thread closes as soon as somebody has been taken from it, or before."""

    def __init__(self, before: bool) -> None:
        self.sock, self.before = socket.create_server(("127.0.0.1", 0)), before

    def accept(self) -> Any:
        if self.before:
            self.sock.close()
        try:
            return self.sock.accept()
        finally:
            self.sock.close()

    def getsockname(self) -> Any:
        return self.sock.getsockname()


def test_who_was_taken_as_the_listener_closed_is_served(worker: Worker) -> None:
    listener: Any = Closing(before=False)
    with socket.create_connection(listener.getsockname()) as client:
        assert worker._accept(listener)
        [taken] = worker._arrived
        assert isinstance(taken, Connection)
        assert taken.sock.getpeername() == client.getsockname()
        taken.sock.close()


def test_a_listener_that_has_been_closed_has_nobody(worker: Worker) -> None:
    assert not worker._accept(cast(Any, Closing(before=True)))
    assert not worker._arrived


def test_those_who_are_new_and_those_who_were_kept_take_turns(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a new client waits while those before it ask again and again."""
    served: list[Connection] = []
    monkeypatch.setattr(worker, "_serve", lambda conn, own, waits: served.append(conn), raising=False)
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:

        def connected() -> socket.socket:
            client = stack.enter_context(socket.create_connection(listener.getsockname()))
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            return client

        kept = []
        for _ in range(3):
            connected()
            kept.append(Connection(None, *listener.accept(), None))
        new = [connected().getsockname() for _ in range(3)]
        worker._arrived.extend([listener, *kept])
        listener.setblocking(False)
        own = worker._leader = Leader()
        while worker._arrived:
            worker._take_next(own)
        old = [conn.client for conn in kept]
        assert [conn.client for conn in served] == [new[0], old[0], new[1], old[1], new[2], old[2]]
        for conn in served:
            conn.sock.close()
