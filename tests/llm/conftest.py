from __future__ import annotations

import datetime
import ipaddress
import json
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from service.llm.claude import ClaudeClient
from service.llm.client import ModelCall, ModelReply, ModelRequest, TextDelta
from tests.llm.wire_server import MESSAGE, WireServer, whole

MakeClaude = Callable[..., ClaudeClient]


class Offline:
    """The offline model, run as the program it is."""

    def __init__(self, url: str) -> None:
        self.url = url

    def control(self, **knobs: Any) -> None:
        body = json.dumps(knobs).encode()
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/control", body), timeout=30).close()

    def stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/stats", timeout=30) as answer:
            told: dict[str, Any] = json.load(answer)
            return told


@pytest.fixture(scope="session")
def offline_process() -> Iterator[Offline]:
    command = [sys.executable, "-m", "offline_model", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield Offline(process.stdout.readline().strip().rpartition(" ")[2])
    process.terminate()
    process.wait(60)
    process.stdout.close()


@pytest.fixture
def offline(offline_process: Offline) -> Iterator[Offline]:
    yield offline_process
    offline_process.control()


@pytest.fixture
def server() -> Iterator[WireServer]:
    server = WireServer(whole(MESSAGE))
    yield server
    server.stop()


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    """A server context with its own certificate for 127.0.0.1, and `root.pem` to trust it by."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "model")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(1))
        .not_valid_after(now + datetime.timedelta(1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (tmp_path / "root.pem").write_bytes(certificate.public_bytes(pem))
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "both.pem").write_bytes(secret + certificate.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    return context


@pytest.fixture
def tls_server(tls: ssl.SSLContext) -> Iterator[WireServer]:
    server = WireServer(whole({"type": "message"}), tls)
    yield server
    server.stop()


@pytest.fixture
def make_claude() -> Iterator[MakeClaude]:
    made: list[ClaudeClient] = []

    def make(url: str, timeout: float = 10.0, max_connections: int = 64) -> ClaudeClient:
        made.append(ClaudeClient("", url, timeout, 3.0, max_connections))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def claude(server: WireServer, make_claude: MakeClaude) -> ClaudeClient:
    return make_claude(server.url)


def a_call(seconds: float = 20.0) -> ModelCall:
    return ModelCall(time.monotonic() + seconds)


def ask(text: str = "Hello", **fields: Any) -> ModelRequest:
    fields = {"model": "claude-haiku-5-5", "max_tokens": 200, **fields}
    return ModelRequest(messages=[{"role": "user", "content": text}], **fields)


def run(answering: Generator[TextDelta, None, ModelReply]) -> tuple[list[str], ModelReply]:
    """Everything the generator yields, and what it returns."""
    pieces: list[str] = []
    while True:
        try:
            pieces.append(next(answering).text)
        except StopIteration as end:
            return pieces, end.value
