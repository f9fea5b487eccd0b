"""The servers that are measured: how each is started, and how each kind of request to it looks."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import httpx2
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from benchmarks.fill import family_id, user_id
from benchmarks.load import Shot
from benchmarks.processes import ROOT, answers, await_true, free_port, process, redis_server
from benchmarks.proxy import Proxy
from benchmarks.shots import Headers, post, prompt
from benchmarks.upstream import Wish

SECRET = "a-secret-of-the-benchmark-and-of-nothing-else"
SIGNING_KEY = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(SECRET.encode()).digest())
NO_LIMIT = 100_000_000  # of the peers, per minute: counted, never reached
ADMIN = {"username": "owner", "password": "a-password-of-the-benchmark"}
Shots = Callable[[str, Wish], Shot]


@dataclass(frozen=True)
class Setup:
    """How a server is started. All else is as it comes.

    `replicas`: so many, of `workers` each, behind nginx and over one Redis and PostgreSQL behind a proxy; 0: one on
    loopback, with a Redis of its own.
    """

    workers: int = 2
    replicas: int = 0
    checkout: Path = ROOT  # whose code Slipway runs
    people: int = 20  # who log in and ask in turn, each within the default limits
    database: str = ""  # empty: SQLite in the server's own folder
    redis: int = 0  # its port; 0: a Redis of the server's own
    agents: Path | None = None  # folder of agents; None: the checkout's own
    program: str = "gunicorn"  # module that serves Slipway
    settings: Mapping[str, str] = field(default_factory=dict)  # of Slipway, where they differ from the usual


@dataclass
class Server:
    """One that runs. `shot` makes a kind of request: invoke, hit or stream."""

    name: str
    port: int
    child: subprocess.Popen[bytes]
    shot: Shots
    redis_pid: int = 0
    started: float = 0.0  # seconds from the start of its process to the first healthy answer
    log: Path = Path()
    more_pids: list[int] = field(default_factory=list)  # such as nginx's
    database_pid: int = 0  # PostgreSQL's, where that is the database
    database: str = ""  # its address, past the proxy
    headers: Headers = lambda _: {}  # of the caller, for further kinds of requests
    alone: Shots | None = None  # requests of one user, where `shot` has those of several
    proxy: Proxy | None = None  # between the service and its Redis and PostgreSQL

    @property
    def is_slipway(self) -> bool:
        return self.name.partition("@")[0] == "slipway"

    @property
    def pids(self) -> list[int]:
        return [self.child.pid, *self.more_pids]


@contextmanager
def started(
    command: list[str], env: Mapping[str, str], log: Path, port: int, health: str, cwd: Path = ROOT
) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """A server once it answers `health`, and the seconds that took. Raises `Failed` when it does not."""
    began = time.monotonic()
    with process(command, log, env, cwd) as child:
        await_true(lambda: answers(port, health), child, "it", log, limit=240)
        yield child, time.monotonic() - began


# --- Slipway ------------------------------------------------------------------------------------------------


def slipway_env(folder: Path, port: int, redis_port: int, upstream: int, setup: Setup) -> dict[str, str]:
    """Slipway's defaults, its limits included: only the caps are raised, and a token lasts the whole run.

    As replicas it is in production, where 60 runs a minute of a user would be too few.
    """
    shape = {"APP_ENV": "production", "LIMIT_RUNS": f"{NO_LIMIT}/minute"}
    return {
        **(shape if setup.replicas else {"APP_ENV": "development", "LOG_LEVEL": "INFO"}),
        "BOOTSTRAP_USERNAME": ADMIN["username"],
        "BOOTSTRAP_PASSWORD": ADMIN["password"],
        "FLASK_SKIP_DOTENV": "1",
        "MODEL_MEDIUM": "claude-sonnet-5-5",  # as in production: development asks the cheapest for everything
        "MODEL_COMPLEX": "claude-opus-5-5",
        "SLIPWAY_HOME": str(folder),
        **({"AGENTS_DIR": str(setup.agents)} if setup.agents else {}),
        "DATABASE_URL": setup.database,
        "REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
        "ANTHROPIC_API_KEY": "bench",
        "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{upstream}",
        "SECRET_KEY": SECRET,
        "JWT_PRIVATE_KEY": SIGNING_KEY.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        ).decode(),
        "PORT": str(port),
        "WEB_CONCURRENCY": str(setup.workers),
        "ACCESS_TOKEN_MINUTES": "600",
        "BUDGET_USER_DAY_USD": "1000000",
        "BUDGET_SERVICE_DAY_USD": "10000000",
        "TRUSTED_PROXIES": "1",
        "LOG_FORMAT": "json",
        **setup.settings,
    }


def migrate(env: Mapping[str, str], checkout: Path = ROOT) -> None:
    command = [sys.executable, "-m", "alembic", "upgrade", "head"]
    whole = {**os.environ, **env}
    subprocess.run(
        command, env=whole, cwd=checkout, check=True, timeout=120, stdout=subprocess.DEVNULL, stderr=2
    )


@contextmanager
def slipway(folder: Path, upstream: int, setup: Setup) -> Iterator[Server]:
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        redis_port, redis_pid = setup.redis, 0
        if not redis_port:
            redis_port, redis_pid = stack.enter_context(redis_server(folder))
        port, log = free_port(), folder / "log.jsonl"
        env = slipway_env(folder, port, redis_port, upstream, setup)
        migrate(env, setup.checkout)
        command = [sys.executable, "-m", setup.program, "-c", "gunicorn.conf.py", "wsgi:app"]
        child, seconds = stack.enter_context(started(command, env, log, port, "/health", setup.checkout))
        headers = _people(port, setup.people)
        shots = slipway_shots(port, headers)
        alone = slipway_shots(port, lambda _: headers(0))
        yield Server("slipway", port, child, shots, redis_pid, seconds, log, headers=headers, alone=alone)


@contextmanager
def unaudited(folder: Path, upstream: int, setup: Setup) -> Iterator[Server]:
    """Start Slipway with an audit that writes nothing."""
    with slipway(folder, upstream, replace(setup, program="benchmarks.unaudited")) as server:
        yield server


def callers(count: int) -> Headers:
    """Access tokens as a log-in makes them, for users who are in the database."""
    now = int(time.time())
    kid = hashlib.sha256(SIGNING_KEY.public_key().public_bytes_raw()).hexdigest()[:16]
    tokens = []
    for number in range(count):
        own = {
            "sub": user_id(number),
            "name": f"bench-{number}",
            "jti": f"jti-{number}",
            "fam": family_id(number),
        }
        claims = {"iss": "slipway", "aud": "slipway", "type": "access", "role": "user", "iat": now, **own}
        claims |= {"exp": now + 36_000}
        tokens.append("Bearer " + jwt.encode(claims, SIGNING_KEY, "EdDSA", headers={"kid": kid}))
    return lambda number: {"Authorization": tokens[number % count]}


def _people(port: int, count: int) -> Headers:
    """Users whom the admin makes and who log in, each from an address of its own, as the limit of log-ins wants it."""
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
        admin = {"Authorization": f"Bearer {_log_in(client, ADMIN, 0)}"}
        tokens = []
        for number in range(1, count + 1):
            login = {"username": f"person-{number}", "password": "a-password-of-the-benchmark"}
            made = client.post("/v1/admin/users", json=login, headers=admin)
            if made.status_code != 409:  # they are there already, where a database is used again
                made.raise_for_status()
            tokens.append({"Authorization": f"Bearer {_log_in(client, login, number)}"})
    return lambda number: tokens[number % count]


def _log_in(client: httpx2.Client, login: dict[str, str], number: int) -> str:
    answer = client.post("/v1/auth/login", json=login, headers={"X-Forwarded-For": f"10.0.0.{number}"})
    return str(answer.raise_for_status().json()["access_token"])


RELAYED = b"event: message_stop", b"event: content_block_delta", b"event: message_stop"


def model_body(wish: Wish, number: int) -> dict[str, object]:
    messages = [{"role": "user", "content": prompt(wish, number)}]
    return {"model": "claude-haiku-5-5", "max_tokens": 1024, "messages": messages, "stream": True}


def slipway_shots(port: int, headers: Headers, **more: str) -> Shots:
    """`more`: further fields of the body, such as `on_disconnect`."""
    agent = "/v1/agents/assistant"

    def shot(kind: str, wish: Wish) -> Shot:
        """Make a request of a kind: hit, invoke, stream.

        Or `act`, an invoke with a tool that changes something, or `relay`, a stream of a model itself.
        """
        if kind == "relay":
            return Shot(port, post("/v1/messages", headers, partial(model_body, wish)), *RELAYED, wish.deltas)
        if kind == "hit":
            ask = post(f"{agent}/invoke", headers, lambda _: {"input": prompt(wish, None)})
            return Shot(port, ask, must=b"X-Cache: hit")

        def body(number: int) -> dict[str, str]:
            return {"input": prompt(wish, number), **more}

        if kind in ("invoke", "act"):
            path = f"{agent}/invoke" if kind == "invoke" else "/v1/agents/clerk/invoke"
            return Shot(port, post(path, headers, body), must=b'"succeeded"')
        ask = post(f"{agent}/stream", headers, body)
        last = b"event: run.completed"
        return Shot(port, ask, last, b"event: text.delta", last, wish.deltas)

    return shot
