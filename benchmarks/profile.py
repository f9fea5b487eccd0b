"""`python -m benchmarks.profile invoke|hit|stream|relay`: where the CPU time of a request goes, in the application.

One process, one request at a time, over a real Redis, SQLite and the offline model. The number of Python calls per
request hardly depends on the machine or on what else runs on it, so it is the figure to compare two versions by.
The profiler makes calls look dearer than they are: of its times only the shares tell something.
"""

from __future__ import annotations

import argparse
import cProfile
import io
import itertools
import os
import pstats
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from flask import Flask

from tests.conftest import migrate, model_server, redis_in

ROOT = Path(__file__).parent.parent
BODIES: dict[str, Callable[[int], dict[str, Any]]] = {
    "invoke": lambda number: {"input": f"Question {number}", "cache": "bypass"},
    "hit": lambda number: {"input": "The same question"},
    "stream": lambda number: {"input": f"[offline tokens=100] Question {number}", "cache": "bypass"},
    "relay": lambda number: {
        "model": "claude-haiku-4-5",
        "max_tokens": 200,
        "stream": True,
        "messages": [{"role": "user", "content": f"[offline tokens=100] Question {number}"}],
    },
}
PATHS = {
    "invoke": "/v1/agents/assistant/invoke",
    "hit": "/v1/agents/assistant/invoke",
    "stream": "/v1/agents/assistant/stream",
    "relay": "/v1/messages",
}


def application(folder: Path, redis_url: str, model_url: str, **more: str) -> Flask:
    """The application with everything on, in this process; its log goes nowhere. `more` are further settings."""
    home, figures = folder / "home", folder / "figures"
    home.mkdir()
    figures.mkdir()
    os.environ |= {
        "APP_ENV": "development",
        "FLASK_SKIP_DOTENV": "1",
        "LOG_LEVEL": "INFO",
        "SLIPWAY_HOME": str(home),
        "REDIS_URL": redis_url,
        "ANTHROPIC_BASE_URL": model_url,
        "LIMIT_RUNS": "1000000/minute",
        "LIMIT_SESSION": "",
        "LOG_FORMAT": "json",
        "PROMETHEUS_MULTIPROC_DIR": str(figures),
        **more,
    }
    migrate({"SLIPWAY_HOME": str(home)})
    from config import load  # these read the environment
    from service.app import create_app

    sys.stderr = (folder / "log").open("w")
    app = create_app(load())
    app.extensions["slipway"].start()
    return app


def caller(app: Flask, case: str) -> Callable[[int], None]:
    """Makes one request, as a server would."""
    login = {"username": "demo", "password": "demo-password"}
    token = app.test_client().post("/v1/auth/login", json=login).get_json()["access_token"]
    path = PATHS[case]

    def call(number: int) -> None:
        body, said = orjson.dumps(BODIES[case](number)), []
        environ: dict[str, Any] = {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": path,
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_AUTHORIZATION": f"Bearer {token}",
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr,
        }
        answer: Any = app(environ, lambda status, headers, _=None: said.append(status))
        whole = b"".join(answer)
        answer.close()
        if said[0] != "200 OK":
            raise RuntimeError(f"{path} answered {said[0]}: {whole[:200]!r}")

    return call


def room(path: str) -> str:
    """The package of a file, or the room of the house."""
    if "site-packages/" in path:
        return path.partition("site-packages/")[2].split("/")[0]
    if path.startswith(str(ROOT)):
        return "/".join(path.removeprefix(f"{ROOT}/").split("/")[:2])
    return "(built in)" if path == "~" else "(standard library)"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("case", choices=sorted(BODIES))
    parser.add_argument("--requests", type=int, default=300)
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="slp", ignore_cleanup_errors=True) as folder,
        redis_in(Path(folder) / "redis") as redis,
        model_server() as model,
    ):
        report(caller(application(Path(folder), redis.url, model.url), asked.case), asked.requests)


def report(call: Callable[[int], None], requests: int) -> None:
    numbers = itertools.count()
    for number in itertools.islice(numbers, 50):
        call(number)
    began = time.process_time()
    for number in itertools.islice(numbers, requests):
        call(number)
    cpu = (time.process_time() - began) * 1000 / requests
    profile = cProfile.Profile(time.thread_time)
    profile.enable()
    for number in itertools.islice(numbers, requests):
        call(number)
    profile.disable()
    calls, seconds = Counter[str](), Counter[str]()
    for (path, _, _), (_, count, own, *_) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        calls[room(path)] += count
        seconds[room(path)] += own
    print(
        f"CPU ms per request: {cpu:.2f}; Python calls per request, of this thread: {calls.total() / requests:.0f}"
    )
    for name, own in seconds.most_common(20):
        print(f"  {own / seconds.total():6.1%}  {calls[name] / requests:7.1f} calls  {name}")


if __name__ == "__main__":
    main()
