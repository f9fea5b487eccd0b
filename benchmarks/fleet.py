"""The servers that run at the moment, over one upstream. One that cannot be started is reported, and left out."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import others, production
from benchmarks.load import Shot
from benchmarks.measure import Bench
from benchmarks.processes import Failed, answers, await_true, free_port, process
from benchmarks.production import Start
from benchmarks.servers import Server, Setup, slipway
from benchmarks.shots import post, prompt
from benchmarks.upstream import Wish

STARTS: dict[str, Start] = {
    "slipway": slipway,
    "fastapi": others.fastapi,
    "litellm": others.litellm,
    "agno": others.agno,
}
TITLES = {
    "upstream": "upstream alone",
    "slipway": "Slipway",
    "unaudited": "Slipway without audit",
    "bare": "SDK, no service",
    "fastapi": "FastAPI + SDK",
    "fastapi-rows": "FastAPI with rows",
    "litellm": "LiteLLM proxy",
    "agno": "Agno AgentOS",
}


def title(name: str) -> str:
    """Name for readers; of another checkout, the name of its folder: `Slipway @ before`."""
    kind, _, checkout = name.partition("@")
    return f"{TITLES.get(kind, kind)} @ {Path(checkout).name}" if checkout else TITLES.get(kind, kind)


class Fleet:
    """Servers by name; each is started when it is first asked for, and again when it is asked for otherwise."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: dict[str, str] = {}
        self._stack = ExitStack()
        self._running: dict[str, tuple[Server, Setup, ExitStack]] = {}
        self.bench = self._upstream()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._stack.close()

    def _upstream(self) -> Bench:
        port, log = free_port(), self.folder / "upstream.log"
        command = [sys.executable, "-m", "benchmarks.upstream", "--port", str(port)]
        child = self._stack.enter_context(process(command, log))
        await_true(lambda: answers(port, "/stats"), child, "the upstream", log)
        self._child = child
        return Bench(port, child.pid)

    def direct(self) -> Server:
        """The upstream itself as a server, to see what it and the load generator can do."""

        def body(number: int, wish: Wish, stream: bool) -> dict[str, Any]:
            messages = [{"role": "user", "content": prompt(wish, number)}]
            return {"model": "claude-haiku-5-5", "max_tokens": 1024, "messages": messages, "stream": stream}

        def shot(kind: str, wish: Wish) -> Shot:
            streamed = kind == "stream"
            ask = post("/v1/messages", lambda _: {}, lambda number: body(number, wish, streamed))
            if not streamed:
                return Shot(self.bench.port, ask, must=b'"end_turn"')
            last = b"event: message_stop"
            return Shot(self.bench.port, ask, last, b"event: content_block_delta", last, wish.deltas)

        return Server("upstream", self.bench.port, self._child, shot)

    def get(self, name: str, setup: Setup) -> Server:
        """Start a server, or find it running. `slipway@FOLDER`: of the checkout in that folder.

        Raises `Failed`; what failed to start is not tried again.
        """
        if name in self.faults:
            raise Failed(self.faults[name])
        kind, _, checkout = name.partition("@")
        if checkout:
            setup = replace(setup, checkout=Path(checkout).resolve())
        start = (production.STARTS if setup.replicas else STARTS)[kind]
        if name in self._running:
            server, now, _ = self._running[name]
            if now == setup and server.child.poll() is None:
                return server
            self.stop(name)
        stack = ExitStack()
        try:
            folder = self.folder / name.replace("/", "-")
            server = replace(stack.enter_context(start(folder, self.bench.port, setup)), name=name)
        except Exception as error:
            stack.close()
            self.faults[name] = str(error) if isinstance(error, Failed) else f"did not start: {error!r}"
            print(f"  {title(name)}: {self.faults[name]}", flush=True)
            raise Failed(self.faults[name]) from error
        self._running[name] = (server, setup, stack)
        return server

    def stop(self, *names: str) -> None:
        """These, or all."""
        for name in names or list(self._running):
            if name in self._running:
                self._running.pop(name)[2].close()
