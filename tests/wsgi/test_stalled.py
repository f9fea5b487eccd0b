"""Clients that stop reading: more of them than there are threads hold nobody up for ever."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx2

from tests.conftest import free_port, process, wait_until

CONFIG = """
import service.web.worker
service.web.worker.SEND_SECONDS = 1
bind = "127.0.0.1:{port}"
worker_class = "service.web.worker.Worker"
threads, keepalive, control_socket_disable = 2, 10, True
"""


def test_a_client_that_stops_reading_is_let_go(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "conf.py").write_text(CONFIG.format(port=port))
    command = [sys.executable, "-m", "gunicorn", "-c", str(tmp_path / "conf.py"), "tests.wsgi.endless:app"]
    with process(command, stderr=subprocess.DEVNULL), ExitStack() as stack:
        wait_until(lambda: healthy(port), "the server")
        for _ in range(4):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: healthy(port), "a thread that is free", timeout=40)


def healthy(port: int) -> bool:
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/health", timeout=3, trust_env=False).status_code == 200
    except httpx2.HTTPError:
        return False
