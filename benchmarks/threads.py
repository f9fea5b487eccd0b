"""CPU time of Gunicorn itself per request: `python -m benchmarks.threads`, about two minutes.

An application that answers two bytes, two workers, 64 clients: what the hand-over to a thread costs over the worker
without threads, and a new connection for each request over one that is kept.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.processes import await_true, cpu_seconds, free_port, listens, process

CLIENTS, REQUESTS, WARM_UP, ROUNDS = 64, 6_000, 500, 3
THREADED = ("-k", "gthread", "--threads", "1024", "--worker-connections", "2024", "--keep-alive", "10")
APP = """
def app(environ, start_response):
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", "2")])
    return [b"{}"]
"""


class Case(NamedTuple):
    name: str
    options: tuple[str, ...]
    keeps: bool  # clients keep their connection


CASES = (
    Case("sync, a connection each", ("-k", "sync"), False),
    Case("gthread, a connection each", THREADED, False),
    Case("gthread, connections kept", THREADED, True),
)


def main() -> None:
    for _ in range(ROUNDS):
        for case in CASES:
            with tempfile.TemporaryDirectory(prefix="slt") as folder:
                cpu, rate = measured(case, Path(folder))
            print(f"{case.name:28} CPU {cpu:.3f} ms, {rate:,.0f} a second", flush=True)


def measured(case: Case, folder: Path) -> tuple[float, float]:
    """Return the CPU time of a request in ms, and requests a second."""
    (folder / "plain.py").write_text(APP)
    port, log = free_port(), folder / "log"
    where = ("-b", f"127.0.0.1:{port}", "-w", "2", "--log-level", "error")
    with process(
        [sys.executable, "-m", "gunicorn", *where, *case.options, "plain:app"], log, cwd=folder
    ) as child:
        await_true(lambda: listens(port), child, "Gunicorn", log)
        asyncio.run(_load(port, WARM_UP, case.keeps))
        began, used = time.monotonic(), cpu_seconds(child.pid)
        asyncio.run(_load(port, REQUESTS, case.keeps))
        seconds = time.monotonic() - began
        return (cpu_seconds(child.pid) - used) / REQUESTS * 1000, REQUESTS / seconds


async def _load(port: int, requests: int, keeps: bool) -> None:
    left = [None] * requests
    await asyncio.wait_for(asyncio.gather(*(_client(port, left, keeps) for _ in range(CLIENTS))), 60)


async def _client(port: int, left: list[None], keeps: bool) -> None:
    line = b"Connection: keep-alive" if keeps else b"Connection: close"
    request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n" + line + b"\r\n\r\n{}"
    while left:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while left:
            left.pop()
            writer.write(request)
            await reader.readuntil(b"{}")
            if not keeps:
                break
        writer.close()


if __name__ == "__main__":
    main()
