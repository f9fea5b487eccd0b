"""RabbitMQ as it comes, on a loopback port, with a name server (epmd) of its own; it may be killed and frozen."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import free_port, process, wait_until
from tests.grown.parts import Certificates

PASSWORD = "pa55@of-rabbit"  # `@` has to be quoted in an address
SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # the one in PATH wants to be root
CONF = """\
listeners.tcp.1 = 127.0.0.1:{port}
distribution.listener.interface = 127.0.0.1
default_user = slipway
default_pass = {password}
"""
SECURE = """\
listeners.ssl.1 = 127.0.0.1:{tls_port}
ssl_options.cacertfile = {folder}/ca.pem
ssl_options.certfile = {folder}/server.pem
ssl_options.keyfile = {folder}/server.key
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
"""


@dataclass
class Rabbit:
    """RabbitMQ server whose durable messages survive a restart."""

    folder: Path
    env: dict[str, str]
    user: dict[str, Any]  # of the process
    port: int
    tls_port: int
    tls: Certificates | None
    child: subprocess.Popen[bytes] | None = None
    _stack: ExitStack = field(default_factory=ExitStack)

    @property
    def url(self) -> str:
        """Return the URL without TLS."""
        return f"amqp://slipway:{PASSWORD.replace('@', '%40')}@127.0.0.1:{self.port}//"

    @property
    def tls_url(self) -> str:
        assert self.tls is not None
        secure = self.url.replace("amqp://", "amqps://").replace(str(self.port), str(self.tls_port))
        return f"{secure}?{self.tls.query}"

    def start(self) -> None:
        with (self.folder / "server.log").open("ab") as log:
            started = process([str(SERVER)], self.env, stdout=log, stderr=log, **self.user)
            self.child = self._stack.enter_context(started)
        wait_until(self.answers, "RabbitMQ", 120)

    def answers(self) -> bool:
        """Check for an AMQP greeting: the server answers any unknown version with its own."""
        with socket.create_connection(("127.0.0.1", self.port), 1) as client:
            client.sendall(b"AMQP\x00\x00\x00\x00")
            return client.recv(4) == b"AMQP"

    def send(self, number: signal.Signals) -> None:
        assert self.child is not None
        os.killpg(self.child.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        assert self.child is not None
        self.child.wait(60)

    def stop(self) -> None:
        self._stack.close()


@contextmanager
def rabbitmq(scratch: Path, tls: Certificates | None = None) -> Iterator[Rabbit]:
    """Skips the test where it is not installed."""
    if not SERVER.exists():
        pytest.skip("no RabbitMQ here (apt-get install rabbitmq-server)")
    scratch.chmod(0o755)
    folder = Path(tempfile.mkdtemp(prefix="rabbit", dir=scratch))
    port, tls_port, names = free_port(), free_port(), free_port()
    conf = CONF.format(port=port, password=PASSWORD)
    if tls is not None:
        shutil.copytree(tls.folder, folder / "tls")
        conf += SECURE.format(tls_port=tls_port, folder=folder / "tls")
    (folder / "rabbitmq.conf").write_text(conf)
    (folder / "plugins").write_text("[].\n")
    env = {
        "HOME": str(folder),
        "ERL_EPMD_PORT": str(names),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RUNNING_UNDER_SYSTEMD": "1",  # one process, and no shell around it that would outlive it
        "RABBITMQ_NODENAME": f"slipway{port}@localhost",
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_LOGS": "-",
    }
    user: dict[str, Any] = {"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}
    if user:
        for path in (folder, *folder.rglob("*")):
            shutil.chown(path, "nobody", "nogroup")
    with process(["epmd"], env, stdout=subprocess.DEVNULL, **user):
        server = Rabbit(folder, env, user, port, tls_port, tls)
        try:
            server.start()
            yield server
        finally:
            server.stop()
