"""Celery's way to a broker over TLS: by whose certificate it is, and by the name in it."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from config import load
from service.jobs.broker import make_app
from tests.grown.parts import Certificates, certificates


class Listener:
    """TLS listener; `heard` is the client's first data after trusting the certificate."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.heard: list[bytes] = []
        self._context = context
        self._listener = socket.create_server(("", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with suppress(OSError):  # it was closed already
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(60)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            near.settimeout(5)
            try:
                with self._context.wrap_socket(near, server_side=True) as secure:
                    self.heard.append(secure.recv(4))
            except OSError:
                near.close()


@pytest.fixture(scope="module")
def tls(scratch: Path) -> Certificates:
    return certificates(scratch / "broker-tls")


@pytest.fixture
def listener(tls: Certificates) -> Iterator[Listener]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tls.folder / "ca.pem"))
    context.load_cert_chain(tls.folder / "server.pem", tls.folder / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED
    one = Listener(context)
    yield one
    one.close()


@pytest.mark.parametrize(
    "host,query,trusted",
    [
        ("localhost", "{mine}", True),
        ("127.0.0.2", "{mine}", False),  # not in the certificate
        ("127.0.0.2", "{mine}&ssl_check_hostname=no", True),
        (
            "localhost",
            "ssl_certfile={folder}/client.pem&ssl_keyfile={folder}/client.key",
            False,
        ),  # no authority
        ("localhost", "ssl_ca_certs={folder}/ca.pem", False),  # nothing to show
    ],
)
def test_rabbitmq_over_tls(
    tls: Certificates, listener: Listener, host: str, query: str, trusted: bool
) -> None:
    told = query.format(mine=tls.query, folder=tls.folder)
    url = f"amqps://user:secret@{host}:{listener.port}//?{told}"
    app = make_app(load({"APP_ENV": "testing", "BROKER_URL": url}))
    with app.connection_for_write(connect_timeout=2) as connection, pytest.raises(OSError):
        connection.connect()
    listener.close()
    assert (b"AMQP" in listener.heard) is trusted
