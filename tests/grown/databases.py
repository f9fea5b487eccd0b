"""Real parts that stand between Slipway and PostgreSQL: PgBouncer, HAProxy; and clients who ask all the while."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.chaos.conftest import Postgres
from tests.conftest import Slipway, free_port, process, wait_until

BOUNCER = """\
[databases]
{named} = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users.txt
pool_mode = transaction
default_pool_size = 4
query_wait_timeout = 5
"""
# The start of a session as `slipway`, then the question: only a primary answers "off".
PROXY = """\
defaults
    mode tcp
    timeout connect 1s
    timeout client 1h
    timeout server 1h
listen postgres
    bind 127.0.0.1:{port}
    option tcp-check
    tcp-check connect
    tcp-check send-binary {start}
    tcp-check expect binary 5a0000000549
    tcp-check send-binary {question}
    tcp-check expect binary 000000036f6666
    timeout check 1s
    default-server inter 300ms fall 2 rise 1 on-marked-down shutdown-sessions
{servers}
"""


def program(name: str) -> str:
    """The path of a program; skips the test where it is not installed."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: apt install {name})")
    return found


@contextmanager
def bouncer(scratch: Path, server: Postgres, named: str = "*") -> Iterator[int]:
    """PgBouncer in transaction mode, as it comes but for its pool of four: its port. `named`: the database it has."""
    port = free_port()
    folder = scratch / f"bouncer-{port}"
    folder.mkdir(0o755)
    (folder / "users.txt").write_text('"slipway" ""\n')
    settings = BOUNCER.format(named=named, server=server.port, port=port, folder=folder)
    (folder / "pgbouncer.ini").write_text(settings)
    user: dict[str, Any] = {"user": "nobody"} if os.geteuid() == 0 else {}
    command = [program("pgbouncer"), str(folder / "pgbouncer.ini")]
    with (folder / "log").open("wb") as log, process(command, stdout=log, stderr=log, **user) as child:
        wait_until(lambda: child.poll() is not None or listens(port), "PgBouncer")
        assert child.poll() is None, (folder / "log").read_text()
        yield port


@contextmanager
def proxy(scratch: Path, *servers: Postgres) -> Iterator[int]:
    """HAProxy before PostgreSQL servers, with the health check that docs/growing.md has: its port."""
    port = free_port()
    folder = scratch / f"haproxy-{port}"
    folder.mkdir()
    start = (196_608).to_bytes(4, "big") + b"user\0slipway\0database\0postgres\0\0"
    start = (len(start) + 4).to_bytes(4, "big") + start
    question = b"SHOW transaction_read_only\0"
    question = b"Q" + (len(question) + 4).to_bytes(4, "big") + question
    lines = [f"    server pg{number} 127.0.0.1:{one.port} check" for number, one in enumerate(servers, 1)]
    text = PROXY.format(port=port, start=start.hex(), question=question.hex(), servers="\n".join(lines))
    (folder / "haproxy.cfg").write_text(text)
    command = [program("haproxy"), "-db", "-f", str(folder / "haproxy.cfg")]
    with (folder / "log").open("wb") as log, process(command, stdout=log, stderr=log) as child:
        wait_until(lambda: child.poll() is not None or listens(port), "HAProxy")
        assert child.poll() is None, (folder / "log").read_text()
        yield port


def listens(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), 1):
        return True


@contextmanager
def asked_all_the_while(server: Slipway) -> Iterator[list[httpx2.Response]]:
    """Ask ten times a second, invoke and stream in turn, for the length of the block; then every answer is there."""
    over = threading.Event()
    asked: list[Future[httpx2.Response]] = []
    answers: list[httpx2.Response] = []
    with server.client() as client, ThreadPoolExecutor(128) as pool:
        client.timeout = httpx2.Timeout(120)

        def ask(number: int) -> httpx2.Response:
            door = "stream" if number % 2 else "invoke"
            question = {"input": f"Question {number} {time.time_ns()}", "cache": "bypass"}
            return client.post(f"/v1/agents/assistant/{door}", json=question)

        def go_on() -> None:
            while not over.wait(0.1):
                asked.append(pool.submit(ask, len(asked)))

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            yield answers
        finally:
            over.set()
            thread.join()
            answers += [future.result() for future in asked]


def whole(answer: httpx2.Response) -> bool:
    if answer.headers["Content-Type"].startswith("text/event-stream"):
        return "event: run.completed" in answer.text
    return answer.status_code == 200 and answer.json()["status"] == "succeeded"


def refused(answer: httpx2.Response) -> bool:
    """Whether it was told to come again, and nothing else happened."""
    return (
        answer.status_code == 503
        and answer.json()["code"] == "database_unavailable"
        and int(answer.headers["Retry-After"]) >= 1
    )


def told(answers: list[httpx2.Response], right: Callable[[httpx2.Response], bool] = whole) -> list[str]:
    """What those were told that are not right."""
    return [f"{answer.status_code} {answer.text[-600:]}" for answer in answers if not right(answer)]
