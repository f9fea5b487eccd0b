"""An endpoint that speaks OpenAI's embeddings API on loopback, and embeddings that pay for its calls."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from service.embeddings import Embeddings
from service.llm.embeddings import HttpEmbedder
from service.store.database import Database
from service.usage.prices import EMBEDDINGS, Price, PriceTable, Tariff
from service.usage.reservation import Spending

MODEL = "text-embedding-3-small"
DOLLAR = 1_000_000  # pico-dollars a token: a dollar for a million, and a thousand nano-dollars for each
Vector = Callable[[str], list[float]]


class Handler(BaseHTTPRequestHandler):
    server: Any

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((body, self.headers.get("Authorization")))
        time.sleep(self.server.seconds)
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        told = {"data": [{"embedding": self.server.vector(text), "index": n} for n, text in enumerate(texts)]}
        if self.server.tokens is not None:
            told["usage"] = {"prompt_tokens": self.server.tokens(texts), "total_tokens": 1}
        answer = json.dumps(told if self.server.answer is None else self.server.answer).encode()
        answer = answer if self.server.body is None else self.server.body
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer[: self.server.most_bytes])

    def log_message(self, *_: Any) -> None: ...


class Endpoint(ThreadingHTTPServer):
    """`tokens` counts those of texts for the report; None: it reports none. `answer` is told instead of vectors, `body`
    instead of any JSON."""

    daemon_threads = True

    def __init__(self, vector: Vector) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.vector = vector
        self.asked: list[Any] = []
        self.status = 200
        self.answer: Any = None
        self.body: bytes | None = None
        self.seconds = 0.0
        self.most_bytes: int | None = None
        self.tokens: Callable[[list[str]], int] | None = lambda texts: sum(len(one.split()) for one in texts)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/embeddings"


@contextmanager
def serving(vector: Vector = lambda text: [1.0, float(len(text))]) -> Iterator[Endpoint]:
    with Endpoint(vector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def price_of(model: str, pico: int = DOLLAR) -> Price:
    tariff = Tariff(0, pico, 0, 0, 0, 0)
    return Price(model, date(2026, 1, 1), (tariff,), 0, 0, "a test", provider=EMBEDDINGS)


def paid(url: str, db: Database, spending: Spending, model: str = MODEL, pico: int = DOLLAR) -> Embeddings:
    """Return embeddings whose model has a price."""
    prices = PriceTable([price_of(model, pico)])
    return Embeddings(HttpEmbedder(url, "secret", model), prices, spending, db)
