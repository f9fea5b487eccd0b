"""Parts as they stand where one machine is not enough: Redis with TLS, passwords and rights, Sentinels, a Cluster."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.conftest import free_port, process, wait_until

PASSWORD, SENTINEL_PASSWORD = "pa55-of-redis#1", "pa55-of-sentinel#2"  # `#` has to be quoted in an address
SERVER = shutil.which("redis-server")


def need_redis() -> str:
    """Find the Redis server's program; skips the test if there is none."""
    if SERVER is None:
        pytest.skip("no redis-server here (apt-get install redis-server)")
    return SERVER


@dataclass
class Node:
    """Redis server, for tests that kill, freeze and restart it."""

    folder: Path
    options: Sequence[str]
    port: int = field(default_factory=free_port)
    tls: dict[str, Any] = field(default_factory=dict)  # of a client
    login: dict[str, str] = field(default_factory=dict)
    child: subprocess.Popen[bytes] | None = None
    _stack: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        port = ("--port", "0", "--tls-port", str(self.port)) if self.tls else ("--port", str(self.port))
        command = [need_redis(), *self.options, *port, "--bind", "127.0.0.1", "--dir", str(self.folder)]
        with (self.folder / "server.log").open("ab") as log:
            self.child = self._stack.enter_context(process(command, stdout=log, stderr=log))
        wait_until(self.answers, f"the server at {self.port}")

    @property
    def url(self) -> str:
        """Return the URL without TLS."""
        return f"redis://:{_quoted(PASSWORD)}@127.0.0.1:{self.port}/1"

    def client(self) -> redis.Redis:
        return redis.Redis(
            port=self.port, socket_timeout=2, single_connection_client=False, **self.tls, **self.login
        )

    def ask(self, *command: Any) -> Any:
        with self.client() as client:
            return client.execute_command(*command)

    def role(self) -> str:
        """`master` or `slave`."""
        return str(self.ask("INFO", "replication")["role"])

    def answers(self) -> bool:
        try:
            return bool(self.ask("PING"))
        except redis.RedisError:
            return False

    def send(self, number: signal.Signals) -> None:
        assert self.child is not None
        with suppress(ProcessLookupError):
            os.kill(self.child.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        assert self.child is not None
        self.child.wait(60)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        self.send(signal.SIGSTOP)
        try:
            yield
        finally:
            self.send(signal.SIGCONT)

    def stop(self) -> None:
        self.send(signal.SIGCONT)
        self._stack.close()


@dataclass(frozen=True)
class Certificates:
    """Certificate authority of the test, with certificates for 127.0.0.1 and for clients."""

    folder: Path

    @property
    def query(self) -> str:
        """Return the URL options for servers with these certificates."""
        files = {"ssl_ca_certs": "ca.pem", "ssl_certfile": "client.pem", "ssl_keyfile": "client.key"}
        return "&".join(f"{name}={self.folder / file}" for name, file in files.items())

    @property
    def client(self) -> dict[str, Any]:
        return {
            "ssl": True,
            "ssl_ca_certs": str(self.folder / "ca.pem"),
            "ssl_certfile": str(self.folder / "client.pem"),
            "ssl_keyfile": str(self.folder / "client.key"),
        }

    @property
    def server(self) -> list[str]:
        """Return the options of a server that requires client certificates."""
        files = {
            "--tls-ca-cert-file": "ca.pem",
            "--tls-cert-file": "server.pem",
            "--tls-key-file": "server.key",
        }
        told = [word for name, file in files.items() for word in (name, str(self.folder / file))]
        return [*told, "--tls-auth-clients", "yes", "--tls-replication", "yes"]


def certificates(folder: Path) -> Certificates:
    """Made with `openssl`, as an operator would."""
    folder.mkdir(parents=True, exist_ok=True)

    def run(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, timeout=30, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    run(
        "req",
        "-x509",
        *key,
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
        "-days",
        "2",
        "-subj",
        "/CN=test authority",
    )
    for name in ("server", "client"):
        (folder / f"{name}.ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        run("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2")
        run("x509", "-req", "-in", f"{name}.csr", *signed, "-out", f"{name}.pem", "-extfile", f"{name}.ext")
    return Certificates(folder)


@contextmanager
def one(folder: Path, tls: Certificates | None = None) -> Iterator[Node]:
    """Redis server with a password."""
    options = ["--requirepass", PASSWORD, "--save", "", *(tls.server if tls else [])]
    node = Node(folder, options, tls=tls.client if tls else {}, login={"password": PASSWORD})
    node.start()
    try:
        yield node
    finally:
        node.stop()


@dataclass
class Sentinels:
    """Redis with one master, two replicas and three sentinels."""

    url: str
    servers: list[Node]
    sentinels: list[Node]

    def master(self) -> Node:
        """Return the master that the sentinels name."""
        _, port = self.sentinels[-1].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")
        return next(server for server in self.servers if server.port == int(port))


@contextmanager
def sentinels(folder: Path, tls: Certificates | None = None) -> Iterator[Sentinels]:
    """Start a replicated Redis with sentinels; all have passwords, the sentinels' differs from the servers'."""
    secure = tls.server if tls else []
    client = tls.client if tls else {}
    common = ["--requirepass", PASSWORD, "--masterauth", PASSWORD, "--save", "", *secure]
    with ExitStack() as stack:
        servers: list[Node] = []
        for number in range(3):
            of_master = ["--replicaof", "127.0.0.1", str(servers[0].port)] if servers else []
            delay = ["--repl-diskless-sync-delay", "0"]
            options = [*common, *delay, *of_master]
            node = Node(folder / f"redis-{number}", options, tls=client, login={"password": PASSWORD})
            node.start()
            stack.callback(node.stop)
            servers.append(node)
        watchers = []
        for number in range(3):
            home = folder / f"sentinel-{number}"
            home.mkdir(parents=True)
            conf = home / "sentinel.conf"
            conf.write_text(
                f"sentinel monitor main 127.0.0.1 {servers[0].port} 2\nsentinel auth-pass main {PASSWORD}\n"
                "sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 5000\n"
                f'requirepass "{SENTINEL_PASSWORD}"\nsentinel sentinel-pass "{SENTINEL_PASSWORD}"\n'
            )
            options = [str(conf), "--sentinel", *secure]
            node = Node(home, options, tls=client, login={"password": SENTINEL_PASSWORD})
            node.start()
            stack.callback(node.stop)
            watchers.append(node)
        wait_until(lambda: all(_knows(one) for one in watchers), "the sentinels to know each other")
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in watchers)
        scheme = "rediss+sentinel" if tls else "redis+sentinel"
        query = f"sentinel_password={_quoted(SENTINEL_PASSWORD)}" + (f"&{tls.query}" if tls else "")
        yield Sentinels(f"{scheme}://:{_quoted(PASSWORD)}@{hosts}/main?{query}", servers, watchers)


def _knows(sentinel: Node) -> bool:
    replicas = sentinel.ask("SENTINEL", "REPLICAS", "main")
    return len(replicas) == 2 and len(sentinel.ask("SENTINEL", "SENTINELS", "main")) == 2


def _quoted(password: str) -> str:
    return password.replace("#", "%23")


@dataclass
class Cluster:
    """Masters first, then a replica of each, where there are any."""

    url: str
    nodes: list[Node]

    def ok(self) -> bool:
        return all(b"cluster_state:ok" in node.ask("CLUSTER", "INFO") for node in self.nodes)


@contextmanager
def cluster(
    folder: Path, count: int, tls: Certificates | None = None, *, started: bool = True
) -> Iterator[Cluster]:
    """Redis Cluster of three masters, or six nodes with replicas. Without `started` the test starts the nodes."""
    secure = [*tls.server, "--tls-cluster", "yes"] if tls else []
    client = tls.client if tls else {}
    nodes = []
    for number in range(count):
        options = [
            *(
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                str(free_port()),
                "--cluster-node-timeout",
                "1500",
            ),
            *("--requirepass", PASSWORD, "--masterauth", PASSWORD, "--save", "", *secure),
            *("--repl-diskless-sync-delay", "0"),
        ]
        nodes.append(Node(folder / f"node-{number}", options, tls=client, login={"password": PASSWORD}))
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes[:3])
    scheme, query = ("rediss+cluster", f"?{tls.query}") if tls else ("redis+cluster", "")
    made = Cluster(f"{scheme}://:{_quoted(PASSWORD)}@{hosts}{query}", nodes)
    with ExitStack() as stack:
        for node in nodes:
            stack.callback(node.stop)
        if started:
            form(made)
        yield made


def form(cluster: Cluster) -> None:
    """Start the nodes and make a cluster of them."""
    for node in cluster.nodes:
        node.start()
    masters = cluster.nodes[:3]
    for number, node in enumerate(masters):
        node.ask("CLUSTER", "ADDSLOTSRANGE", number * 16384 // 3, (number + 1) * 16384 // 3 - 1)
    first = masters[0]
    bus = first.options[first.options.index("--cluster-port") + 1]
    for node in cluster.nodes[1:]:
        node.ask("CLUSTER", "MEET", "127.0.0.1", first.port, bus)
    known = f"cluster_known_nodes:{len(cluster.nodes)}".encode()
    wait_until(lambda: all(known in node.ask("CLUSTER", "INFO") for node in cluster.nodes), "the cluster")
    for master, replica in zip(masters, cluster.nodes[3:], strict=False):
        replica.ask("CLUSTER", "REPLICATE", master.ask("CLUSTER", "MYID").decode())
    wait_until(cluster.ok, "the cluster's state")
    for replica in cluster.nodes[3:]:
        wait_until(
            lambda one=replica: one.ask("INFO", "replication")["master_link_status"] == "up", "a replica", 30
        )
