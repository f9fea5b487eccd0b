"""Processes that tests start, which end with them: programs of the service, and any other."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from tests.forked import Forker
from tests.guardian import Guardian

ROOT = Path(__file__).parent.parent
PYTHON = sys.executable
ALEMBIC = [PYTHON, "-m", "alembic", "upgrade", "head"]
guardian, forker = Guardian(), Forker()  # one of each for each process that runs tests


@contextmanager
def process(
    command: list[str], env: dict[str, str] | None = None, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the test's own: asked to end with SIGTERM, then made to.

    One of the service's programs is a `ForkedChild`, unless it needs a process of its own from the start.
    """
    environ = {**os.environ, **(env or {})}
    child: Any = forker.start(command, environ, options)
    if child is None:
        options = {"cwd": ROOT, **options}
        child = subprocess.Popen(command, env=environ, start_new_session=True, **options)
    guardian.list(child.pid)
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait(30)
        guardian.unlist(child.pid)


def migrate(env: dict[str, str]) -> None:
    """Migrate the database of the settings; a new SQLite file is a copy of one that was migrated."""
    file = Path(env.get("SLIPWAY_HOME", "")) / "slipway.db"
    if env.get("DATABASE_URL", f"sqlite:///{file}") == f"sqlite:///{file}" and not file.exists():
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.write_bytes(_migrated())
    else:
        _alembic(env)


@cache
def _migrated() -> bytes:
    home = Path(tempfile.mkdtemp(prefix="slw"))
    try:
        _alembic({"APP_ENV": "testing", "SLIPWAY_HOME": str(home)})
        assert not (home / "slipway.db-wal").exists()
        return (home / "slipway.db").read_bytes()
    finally:
        shutil.rmtree(home)


def _alembic(env: dict[str, str]) -> None:
    with process(ALEMBIC, env) as child:
        assert child.wait(120) == 0, "the database was not migrated"
