"""The site with TLS, maintenance, log-ins by address, and a reload while a stream is open."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.conftest import free_port, wait_until
from tests.nginx.edge import Edge, Gate, Replica, listening
from tests.nginx.test_config import compose_tls

HTML = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}


class TlsEdge:
    """Ports of the three servers of compose-tls.conf, moved to loopback."""

    def __init__(self, folder: Path, replica: int) -> None:
        self.plain, self.redirect, self.tls = free_port(), free_port(), free_port()
        self.folder, self.replica = folder, replica
        self.edge = Edge(folder, [replica], self.move)
        self.edge.port = self.plain  # where Edge waits for nginx

    def move(self, folder: Path) -> None:
        compose_tls(folder)
        site = folder / "site.conf"
        text = site.read_text()
        for ours, theirs in ((8080, self.plain), (8081, self.redirect), (8443, self.tls)):
            assert f"listen {ours} " in text
            text = text.replace(f"listen {ours} ", f"listen 127.0.0.1:{theirs} ")
        site.write_text(text.replace("slipway:8000", f"127.0.0.1:{self.replica}"))


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsEdge]:
    with Replica() as replica:
        site = TlsEdge(tmp_path_factory.mktemp("tls") / "n", replica.port)
        with site.edge:
            wait_until(lambda: listening(site.tls), "TLS")
            yield site


def visitor() -> httpx2.Client:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return httpx2.Client(verify=context, trust_env=False, timeout=30)


def test_tls_site_sends_hsts_and_tells_the_replica(tls: TlsEdge) -> None:
    with visitor() as client:
        answer = client.get(f"https://127.0.0.1:{tls.tls}/v1/agents")
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
    assert answer.json()["headers"]["x-forwarded-proto"] == "https"


def test_tls_site_speaks_http_2_and_no_old_tls(tls: TlsEdge) -> None:
    def chosen(*options: str) -> str:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{tls.tls}", *options]
        done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
        return done.stdout.decode(errors="replace")

    assert "ALPN protocol: h2" in chosen("-alpn", "h2,http/1.1")
    assert "Cipher is (NONE)" in chosen("-tls1_1")


def test_redirect_uses_the_name_that_was_set(tls: TlsEdge) -> None:
    with visitor() as client:
        answer = client.get(f"http://127.0.0.1:{tls.redirect}/docs?x=1", headers={"Host": "evil.example"})
    assert (answer.status_code, answer.headers["Location"]) == (301, "https://localhost/docs?x=1")


def test_plain_http_of_the_tls_site_is_for_agents_inside(tls: TlsEdge) -> None:
    answer = tls.edge.http.get(f"http://127.0.0.1:{tls.plain}/v1/messages")
    assert answer.status_code == 200 and "Strict-Transport-Security" not in answer.headers


@pytest.fixture
def closed(edge: Edge) -> Iterator[Path]:
    marker = edge.folder / "maintenance"
    marker.touch()
    yield marker
    marker.unlink(missing_ok=True)


def test_maintenance_answers_programs_and_browsers(edge: Edge, closed: Path) -> None:
    answer = edge.http.post("/v1/agents/a/invoke", json={}, headers={"X-Request-ID": "mine-1"})
    problem = answer.json()
    assert (answer.status_code, problem["status"], problem["code"]) == (503, 503, "unavailable")
    assert problem["detail"] == "Slipway is under maintenance" and problem["request_id"] == "mine-1"
    assert problem["instance"] == "/v1/agents/a/invoke" and answer.headers["Retry-After"] == "30"
    assert answer.headers["Content-Type"] == "application/problem+json"

    shown = edge.http.get("/", headers=HTML)
    assert shown.status_code == 503 and shown.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "Under maintenance" in shown.text and shown.headers["Retry-After"] == "30"
    assert shown.headers.get_list("X-Frame-Options") == ["DENY"]


def test_maintenance_lets_health_through_and_ends_at_once(
    edge: Edge, closed: Path, replicas: tuple[Replica, Replica]
) -> None:
    assert [edge.http.get(path).status_code for path in ("/health", "/ready", "/metrics")] == [200, 200, 503]
    assert edge.http.get("/v1/health").status_code == 503
    seen = [path for replica in replicas for _, path, _ in replica.seen]
    assert sorted(seen) == ["/health", "/ready"]
    closed.unlink()
    assert edge.http.get("/v1/agents").status_code == 200


@pytest.mark.parametrize("path", ["/_maintenance.html", "/_maintenance.json", "/_problem"])
def test_pages_of_nginx_have_no_address_of_their_own(edge: Edge, path: str) -> None:
    assert edge.http.get(path).status_code == 404


def test_open_streams_outlive_maintenance_and_a_reload(tmp_path: Path) -> None:
    gate = Gate()
    with (
        Replica(gate) as replica,
        Edge(tmp_path / "n", [replica.port]) as edge,
        edge.http.stream("POST", "/v1/agents/a/stream", json={}) as answer,
    ):
        told = answer.iter_lines()
        assert next(told) == "data: first"
        (edge.folder / "maintenance").touch()
        headers = edge.folder / "slipway" / "headers.conf"
        headers.write_text(headers.read_text() + "add_header X-Reloaded yes always;\n")
        subprocess.run(edge.command("-s", "reload"), check=True, capture_output=True, timeout=20)

        def reloaded() -> bool:
            with httpx2.Client(base_url=edge.url, trust_env=False) as client:
                return client.get("/v1/agents").headers.get("X-Reloaded") == "yes"

        wait_until(reloaded, "the new configuration")
        gate.opened.set()
        assert [line for line in told if line] == ["data: last"]


def rarely(folder: Path) -> None:
    """One log-in a minute after a burst of five, so that the machine's speed does not count."""
    for name, ours, theirs in (("http", "rate=20r/s", "rate=1r/m"), ("server", "burst=100", "burst=5")):
        conf = folder / "slipway" / f"{name}.conf"
        assert ours in conf.read_text()
        conf.write_text(conf.read_text().replace(ours, theirs))


def test_log_ins_of_one_address_are_slowed_down_and_nothing_else(tmp_path: Path) -> None:
    with Replica() as replica, Edge(tmp_path / "n", [replica.port], rarely) as edge:
        answers = [edge.http.post("/v1/auth/login", json={}) for _ in range(8)]
        assert [answer.status_code for answer in answers] == [200] * 6 + [429] * 2
        assert (answers[-1].json()["code"], answers[-1].headers["Retry-After"]) == ("rate_limited", "1")
        assert all(edge.http.get("/v1/agents").status_code == 200 for _ in range(20))
