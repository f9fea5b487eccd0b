"""PostgreSQL servers, and real parts that stand between them and Slipway: PgBouncer, HAProxy."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.chaos.conftest import Postgres
from tests.conftest import free_port, process, wait_until

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
    """Find a program; skips the test if it is not installed."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: apt install {name})")
    return found


@contextmanager
def postgres_in(scratch: Path, primary: Postgres | None = None) -> Iterator[Postgres]:
    scratch.chmod(0o755)
    server = Postgres(Path(tempfile.mkdtemp(prefix="failover", dir=scratch)), primary)
    server.start()
    try:
        yield server
    finally:
        server.stop()


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
        wait_until(lambda: child.poll() is not None or answers(port), "HAProxy")
        assert child.poll() is None, (folder / "log").read_text()
        yield port


def answers(port: int) -> bool:
    """Tell whether a server that takes writes answers: HAProxy listens before it has found one."""
    with suppress(psycopg.OperationalError):
        psycopg.connect(f"postgresql://slipway@127.0.0.1:{port}/postgres", connect_timeout=2).close()
        return True
    return False


def listens(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), 1):
        return True
