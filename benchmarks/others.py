"""The peers: each in an environment of its own (`make bench-peers`), each with two workers unless told otherwise."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import jwt

from benchmarks.load import Shot
from benchmarks.processes import Failed, free_port, redis_server
from benchmarks.servers import NO_LIMIT, SECRET, Server, Setup, Shots, started
from benchmarks.shots import post, prompt
from benchmarks.upstream import Wish

PEERS = Path(__file__).parent / "peers"
PATIENT = "120"  # seconds: uvicorn's parent would kill a worker that is too busy to answer it within five


def program_of(peer: str, name: str) -> str:
    """A program of a peer's own environment. Raises `Failed` when it is not there."""
    path = PEERS / ".venvs" / peer / "bin" / name
    if not path.exists():
        raise Failed("not installed: make bench-peers")
    return str(path)


def _model(upstream: int) -> dict[str, str]:
    return {"ANTHROPIC_API_KEY": "bench", "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{upstream}"}


def _workers(setup: Setup) -> list[str]:
    return ["--workers", str(setup.workers), "--timeout-worker-healthcheck", PATIENT]


# --- FastAPI ------------------------------------------------------------------------------------------------


@contextmanager
def fastapi(folder: Path, upstream: int, setup: Setup) -> Iterator[Server]:
    """With a database it keeps its users there, and each answer of the model."""
    command = [program_of("fastapi_app", "python"), "-m", "uvicorn", "app:app", "--host", "127.0.0.1"]
    with ExitStack() as stack:
        redis_port, redis_pid = setup.redis, 0
        if not redis_port:
            redis_port, redis_pid = stack.enter_context(redis_server(folder))
        port, log = free_port(), folder / "log.txt"
        env = {
            "SECRET_KEY": SECRET,
            "LIMIT_PER_MINUTE": str(NO_LIMIT),
            "REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
            "DATABASE_URL": setup.database,
            **_model(upstream),
        }
        command += ["--port", str(port), *_workers(setup)]
        cwd = PEERS / "fastapi_app"
        child, seconds = stack.enter_context(started(command, env, log, port, "/health", cwd))
        name = "fastapi-rows" if setup.database else "fastapi"
        yield Server(name, port, child, _fastapi_shots(port), redis_pid, seconds, log)


def _fastapi_shots(port: int) -> Shots:
    claims = {"sub": "ada", "iss": "bench", "aud": "bench", "exp": int(time.time()) + 36_000}
    token = {"Authorization": f"Bearer {jwt.encode(claims, SECRET, 'HS256')}"}

    def shot(kind: str, wish: Wish) -> Shot:
        if kind == "hit":
            ask = post("/invoke", lambda _: token, lambda _: {"input": prompt(wish, None)})
            return Shot(port, ask, must=b"x-cache: hit")
        ask = post(f"/{kind}", lambda _: token, lambda number: {"input": prompt(wish, number)})
        if kind == "invoke":
            return Shot(port, ask, must=b'"output"')
        return Shot(port, ask, b"event: done", b"event: delta", b"event: done", wish.deltas)

    return shot


# --- LiteLLM ------------------------------------------------------------------------------------------------


@contextmanager
def litellm(folder: Path, upstream: int, setup: Setup) -> Iterator[Server]:
    """Its proxy without a database: it keeps nothing, and has one key that may do everything."""
    program = program_of("litellm_proxy", "litellm")
    with ExitStack() as stack:
        redis_port, redis_pid = setup.redis, 0
        if not redis_port:
            redis_port, redis_pid = stack.enter_context(redis_server(folder))
        port, log = free_port(), folder / "log.txt"
        env = {
            "LITELLM_MASTER_KEY": "sk-bench",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # its prices are not fetched from the network
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(redis_port),
            **_model(upstream),
        }
        options = ["--host", "127.0.0.1", "--port", str(port), "--num_workers", str(setup.workers)]
        options += ["--telemetry", "False", "--timeout_worker_healthcheck", PATIENT]
        command = [program, "--config", "config.yaml", *options]
        cwd = PEERS / "litellm_proxy"
        child, seconds = stack.enter_context(started(command, env, log, port, "/health/liveliness", cwd))
        yield Server("litellm", port, child, _litellm_shots(port), redis_pid, seconds, log)


STREAMED = ("stream", "relay")  # all that it does is to relay


def _litellm_shots(port: int) -> Shots:
    headers = {"Authorization": "Bearer sk-bench", "anthropic-version": "2023-06-01"}

    def shot(kind: str, wish: Wish) -> Shot:
        def body(number: int) -> dict[str, object]:
            text = prompt(wish, None if kind == "hit" else number)
            messages = [{"role": "user", "content": text}]
            asked = {"model": "claude-haiku-5-5", "max_tokens": 1024, "messages": messages}
            return {**asked, "stream": True} if kind in STREAMED else asked

        ask = post("/v1/messages", lambda _: headers, body)
        if kind in STREAMED:
            stop = b"event: message_stop"
            return Shot(port, ask, stop, b"event: content_block_delta", stop, wish.deltas)
        return Shot(port, ask, must=b'"end_turn"')  # a hit looks like any answer: the upstream is not asked

    return shot


# --- Agno ---------------------------------------------------------------------------------------------------


@contextmanager
def agno(folder: Path, upstream: int, setup: Setup) -> Iterator[Server]:
    """AgentOS keeps each run in a session. It has no answer cache and no limit per user."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [program_of("agno_os", "python"), "-m", "uvicorn", "app:app", "--host", "127.0.0.1"]
    port, log = free_port(), folder / "log.txt"
    env = {
        "OS_SECURITY_KEY": "sk-bench",
        "AGNO_TELEMETRY": "false",
        "BENCH_DATABASE": setup.database or str(folder / "agno.db"),
        **_model(upstream),
    }
    command += ["--port", str(port), *_workers(setup)]
    with started(command, env, log, port, "/health", PEERS / "agno_os") as (child, seconds):
        yield Server("agno", port, child, _agno_shots(port), 0, seconds, log)


def _agno_shots(port: int) -> Shots:
    headers = {"Authorization": "Bearer sk-bench"}

    def shot(kind: str, wish: Wish) -> Shot:
        if kind == "hit":
            raise Failed("it has no answer cache")
        streamed = kind == "stream"

        def body(number: int) -> dict[str, str]:
            return {"message": prompt(wish, number), "stream": "true" if streamed else "false"}

        ask = post("/agents/assistant/runs", lambda _: headers, body, form=True)
        if not streamed:
            return Shot(port, ask, must=b'"run_id"')
        # The whole text comes again in an event after the last delta, with what the model said of itself.
        return Shot(
            port, ask, b"event: RunCompleted", b"event: RunContent", b"model_provider_data", wish.deltas
        )

    return shot
