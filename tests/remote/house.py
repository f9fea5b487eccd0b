"""An agent `probe` that is asked elsewhere, and the service that answers for it as a test tells it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.types import Run, RunEvent
from service.wiring import Services
from tests.gateway import house as gateways
from tests.gateway.house import Gateway
from tests.llm.wire_server import Exchange, WireServer, chunk, head, whole
from tests.runs import inside

SUCCEEDED: dict[str, Any] = {"status": "succeeded", "output": "Good day."}
Handler = Callable[[Exchange], None]


def spec(url: str, **remote: Any) -> str:
    return (
        "description: A test agent.\npattern: remote\nlimits: {steps: 5, seconds: 20}\n"
        f"remote: {json.dumps({'url': url, **remote})}\n"
    )


def event(name: str, data: Any) -> bytes:
    text = data if isinstance(data, str) else json.dumps(data)
    return f"event: {name}\ndata: {text}\n\n".encode()


def streams(*events: bytes, then: Handler | None = None) -> Handler:
    """A handler: an event stream; `then` instead of its proper end."""

    def answer(exchange: Exchange) -> None:
        exchange.send(head(200, None, "content-type: text/event-stream\r\n"))
        for one in events:
            exchange.send(chunk(one))
        if then is None:
            exchange.send(b"0\r\n\r\n")
        else:
            then(exchange)

    return answer


def text(piece: str) -> bytes:
    return event("text.delta", {"text": piece})


def completed(output: str = "Good day.", **more: Any) -> bytes:
    return event("run.completed", {**SUCCEEDED, "output": output, **more})


def waiting(*calls: str, **more: Any) -> dict[str, Any]:
    asked = [{"call_id": call, "name": "send_mail", "arguments": {"to": call}} for call in calls]
    return {"status": "waiting_approval", "output": "", "approvals": asked, "state": {"at": 7}, **more}


@dataclass
class Far:
    """Slipway with its agent `probe`, and the `service` that is asked. `door`: the gateway over HTTP."""

    services: Services
    service: WireServer
    door: Gateway

    def ask(self, question: str = "Hello?", **fields: Any) -> Run:
        return inside.ask(self.services, question, cache="bypass", **fields)

    def stream(self, question: str = "Hello?", **fields: Any) -> list[RunEvent]:
        request = inside.request(question, cache="bypass", **fields)
        started, batches = self.services.runs.start.stream(inside.ADA, request, None, "req")
        events = [event for batch in batches for event in batch]
        assert started.place is not None
        started.place.give()
        return events

    def again(self, run: Run) -> Run:
        """Let a worker take the run up, and return what came of it."""
        assert self.services.runs.execution.take_up(run.id)
        return self.services.runs.queries.get(run.id)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """Bodies of the questions that the service got."""
        return [one.json for one in self.service.requests if not one.head.startswith(b"POST /cancel")]


@contextmanager
def far(
    home: Path,
    redis_url: str,
    otherwise: Any = None,
    protocol: str = "post",
    silence: float = 5,
    **settings: Any,
) -> Iterator[Far]:
    service = WireServer(otherwise or whole(SUCCEEDED))
    place = service.url.removeprefix("http://")
    probe = spec(service.url, protocol=protocol, silence_seconds=silence)
    chosen = {"remote_hosts": place, **settings}
    try:
        with gateways.gateway(home, redis_url, specs={"probe": probe}, **chosen) as door:
            yield Far(door.services, service, door)
    finally:
        service.stop()
