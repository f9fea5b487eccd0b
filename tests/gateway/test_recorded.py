"""Recorded streams of the Anthropic SDK's own tests come out of the gateway byte for byte, however they were cut."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import ROOT, RedisServer
from tests.gateway import house
from tests.gateway.house import HELLO, Gateway
from tests.gateway.test_keys import key_of, newest

FOLDER = ROOT / "tests" / "data" / "anthropic_streams"
STREAMS = sorted([*FOLDER.glob("*.txt"), *FOLDER.glob("*.sse")])
CUTS = 4  # chunkings of each stream
MORE = b"\n\n: a comment after the last event\n\n"
LONGEST = 64  # bytes of a chunk


@dataclass
class Recorder:
    """Model that answers every call with `stream`, cut by `seed` into chunks."""

    url: str = ""
    stream: bytes = b""
    seed: int = 0


def chunks(stream: bytes, seed: int) -> Iterator[bytes]:
    chance, at = random.Random(seed), 0
    while at < len(stream):
        size = chance.randint(1, LONGEST)
        yield stream[at : at + size]
        at += size


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for chunk in chunks(recorder.stream, recorder.seed):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    recorder.url = f"http://127.0.0.1:{server.server_port}"
    yield recorder
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def before(
    tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer, recorder: Recorder
) -> Iterator[Gateway]:
    home = tmp_path_factory.mktemp("recorded")
    with house.gateway(home, redis_server.url, anthropic_base_url=recorder.url) as made:
        yield made


@pytest.mark.parametrize("credential", ["key", "token of a run"])
@pytest.mark.parametrize("path", STREAMS, ids=[path.stem for path in STREAMS])
def test_stream_is_the_recorded_one(before: Gateway, recorder: Recorder, path: Path, credential: str) -> None:
    recorded = path.read_bytes()
    secret = key_of(before) if credential == "key" else before.token(before.run())
    with httpx2.Client(base_url=before.url, headers={"x-api-key": secret}) as client:
        for recorder.seed in range(CUTS):
            recorder.stream = recorded + (MORE if recorder.seed % 2 else b"")
            answer = client.post("/v1/messages", json={**HELLO, "stream": True})
            assert (answer.status_code, answer.content) == (200, recorder.stream), recorder.seed
    if credential == "key":
        assert newest(before)["status"] == "succeeded"
    assert before.held == 0


def test_all_streams_are_there() -> None:
    assert len(STREAMS) == 10
