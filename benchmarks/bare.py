"""The call without any service: the official asynchronous SDK in one process, `python -m benchmarks.bare JSON`.

The argument is a `Job`; what it prints is a line of JSON with the figures of `benchmarks.load.Result` and the CPU
seconds of this process.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from typing import Any, NamedTuple

import anthropic

from benchmarks.shots import prompt
from benchmarks.upstream import PIECE, Wish

WARM_UP = 20  # calls before the measurement


class Job(NamedTuple):
    port: int
    kind: str  # invoke | stream
    wish: list[int]
    clients: int
    requests: int
    begin: int
    spread: float  # seconds over which the clients begin


class Bare:
    def __init__(self, job: Job) -> None:
        self.job, self.left, self.number = job, job.requests, job.begin
        self.wish = Wish(*job.wish)
        http = anthropic.DefaultAsyncHttpxClient(limits=_limits(job.clients))  # calls do not wait for one
        self.claude = anthropic.AsyncAnthropic(
            api_key="bench",
            base_url=f"http://127.0.0.1:{job.port}",
            max_retries=0,
            http_client=http,
        )
        self.totals: list[float] = []
        self.firsts: list[float] = []
        self.errors: Counter[str] = Counter()

    async def client(self, delay: float) -> None:
        await asyncio.sleep(delay)
        while self.left > 0:
            self.left -= 1
            self.number += 1
            try:
                await self.once(self.number)
            except Exception as error:
                self.errors[type(error).__name__] += 1

    async def once(self, number: int) -> None:
        messages: Any = [{"role": "user", "content": prompt(self.wish, number)}]
        asked: dict[str, Any] = {"model": "claude-haiku-5-5", "max_tokens": 1024, "messages": messages}
        began, first, told = time.perf_counter(), 0.0, 0
        if self.job.kind == "invoke":
            await self.claude.messages.create(**asked)
        else:
            async for event in await self.claude.messages.create(**asked, stream=True):
                if event.type == "content_block_delta" and event.delta.type == "text_delta":
                    first = first or time.perf_counter()
                    told += event.delta.text.count(PIECE.decode())
            if told != self.wish.deltas:
                self.errors["pieces are missing"] += 1
                return
            self.firsts.append(first - began)
        self.totals.append(time.perf_counter() - began)

    async def run(self) -> dict[str, Any]:
        warm = Bare(self.job._replace(requests=WARM_UP, wish=list(Wish())))
        warm.claude = self.claude
        await asyncio.gather(*(warm.client(0) for _ in range(4)))
        began, cpu = time.perf_counter(), time.process_time()
        spread = self.job.spread / self.job.clients
        await asyncio.gather(*(self.client(spread * n) for n in range(self.job.clients)))
        return {
            "totals": self.totals,
            "firsts": self.firsts,
            "errors": self.errors,
            "seconds": time.perf_counter() - began,
            "cpu": time.process_time() - cpu,
        }


def _limits(clients: int) -> Any:
    import httpx2

    return httpx2.Limits(max_connections=clients + 10, max_keepalive_connections=clients + 10)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(Bare(Job(**json.loads(sys.argv[1]))).run())))
