"""Headers, limits and errors of nginx itself, over scripted replicas."""

from __future__ import annotations

import json
import socket
import threading
from http.client import HTTPResponse
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx2
import pytest

from tests.conftest import free_port, wait_until
from tests.nginx.edge import ROOT, Edge, Replica, hang_up, say

PROBLEM = {"type", "title", "status", "detail", "instance", "code", "request_id"}


def test_valid_request_id_is_forwarded_and_returned(edge: Edge) -> None:
    for sent in ("a", "A.b_c-9", "x" * 128):
        answer = edge.http.get("/v1/agents", headers={"X-Request-ID": sent})
        assert answer.json()["headers"]["x-request-id"] == sent
        assert answer.headers.get_list("X-Request-ID") == [sent]


@pytest.mark.parametrize("sent", ["", "x" * 129, "a b", 'a"b', "a/b", "ä"])
def test_invalid_request_id_is_replaced(edge: Edge, sent: str) -> None:
    answer = edge.http.get("/v1/agents", headers={b"X-Request-ID": sent.encode()})
    made = answer.headers["X-Request-ID"]
    assert made != sent and len(made) == 32
    assert answer.json()["headers"]["x-request-id"] == made


def test_request_id_header_is_not_duplicated(edge: Edge, replicas: tuple[Replica, Replica]) -> None:
    for replica in replicas:
        replica.script = say(
            200, {}, X_Request_ID="abc", X_Content_Type_Options="nosniff", X_Frame_Options="DENY"
        )
    answer = edge.http.get("/", headers={"X-Request-ID": "abc"})
    for name in ("X-Request-ID", "X-Content-Type-Options", "X-Frame-Options"):
        assert len(answer.headers.get_list(name)) == 1, name


def test_client_forwarding_headers_are_not_trusted(edge: Edge) -> None:
    lies = {
        "X-Forwarded-For": "6.6.6.6",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Prefix": "/evil",
        "X-Forwarded-Port": "1",
        "Forwarded": "for=6.6.6.6",
        "X-Real-IP": "6.6.6.6",
    }
    seen = edge.http.get("/", headers=lies).json()["headers"]
    assert seen["x-forwarded-for"] == "127.0.0.1"
    assert seen["x-forwarded-proto"] == "http"
    assert seen["x-forwarded-host"] == seen["host"] == f"127.0.0.1:{edge.port}"
    assert not {"x-forwarded-prefix", "x-forwarded-port", "forwarded", "x-real-ip"} & seen.keys()
    assert seen["connection"] == "close"


def test_every_answer_has_security_headers(edge: Edge) -> None:
    for path in ("/", "/metrics"):
        headers = edge.http.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Server"] == "nginx"
        assert "Strict-Transport-Security" not in headers  # plain HTTP: it would mean nothing


PATHS = ["/metrics", "/metrics/", "//metrics", "/%6Detrics", "/x/../metrics", "/metrics%2f", "/./metrics?x=1"]


@pytest.mark.parametrize("path", PATHS)
def test_metrics_are_hidden(edge: Edge, replicas: tuple[Replica, Replica], path: str) -> None:
    answer = raw(edge, f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b'"code":"not_found"' in answer
    assert not any(replica.seen for replica in replicas)


def raw(edge: Edge, sent: bytes, wait: float = 20) -> bytes:
    """Send bytes as they are; everything that comes until nginx closes."""
    with socket.create_connection(("127.0.0.1", edge.port), wait) as connection:
        connection.sendall(sent)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer


@pytest.mark.parametrize(
    ("status", "code", "request_line", "header"),
    [
        (400, "bad_request", b"GET / HTTP/1.1", b"Host: a b"),
        (405, "method_not_allowed", b"TRACE / HTTP/1.1", b"Host: a"),
        (413, "too_large", b"POST /v1/agents/a/invoke HTTP/1.1", b"Host: a\r\nContent-Length: 2000000"),
        (414, "uri_too_long", b"GET /" + b"a" * 20_000 + b" HTTP/1.1", b"Host: a"),
        (431, "headers_too_large", b"GET / HTTP/1.1", b"Host: a\r\nX-Big: " + b"a" * 20_000),
    ],
)
def test_nginx_errors_are_problem_documents(
    edge: Edge, status: int, code: str, request_line: bytes, header: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", edge.port), 20) as connection:
        connection.sendall(request_line + b"\r\nX-Request-ID: mine-1\r\n" + header + b"\r\n\r\n")
        answer = HTTPResponse(connection)
        answer.begin()
        problem = json.load(answer)
    assert answer.status == problem["status"] == status
    assert answer.getheader("Content-Type") == "application/problem+json"
    assert answer.getheader("Cache-Control") == "no-store"
    assert problem.keys() == PROBLEM
    assert problem["code"] == code
    assert problem["request_id"] == answer.getheader("X-Request-ID")
    if status in (405, 413):  # the others are answered before nginx has read the headers
        assert problem["request_id"] == "mine-1"


def test_url_is_escaped_in_the_problem_document(tmp_path: Path) -> None:
    with Edge(tmp_path / "n", [1, 2]) as edge:  # nothing listens there: every request ends in nginx's own 503
        answer = raw(edge, b'GET /a","code":"x\\ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
        problem = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert (problem["code"], problem["instance"]) == ("unavailable", "/a")
        assert edge.log()[-1]["path"] == "/a"


def test_service_errors_are_passed_unchanged(edge: Edge, replicas: tuple[Replica, Replica]) -> None:
    theirs = {"code": "model_error", "detail": "theirs"}
    for status in (401, 404, 413, 429, 500, 502, 503, 504):
        for replica in replicas:
            replica.script = say(status, theirs, Retry_After="7")
        answer = edge.http.get("/v1/agents")
        assert (answer.status_code, answer.json()) == (status, theirs)
        assert answer.headers.get_list("Retry-After") == ["7"]


def test_body_slightly_too_large_is_left_to_the_service(edge: Edge) -> None:
    answer = edge.http.post("/v1/agents/a/invoke", content=b"x" * (1024 * 1024 + 1))
    assert answer.status_code == 200  # the scripted replica takes all; the service would say its own 413


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens", "/v1/chat/completions"])
def test_bodies_with_images_reach_the_service_whole(edge: Edge, path: str) -> None:
    assert edge.http.post(path, content=b"x" * (32 * 1024 * 1024 + 1)).status_code == 200
    assert edge.http.post(path, content=b"x" * (33 * 1024 * 1024 + 1)).status_code == 413


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
def test_loss_of_a_replica_with_a_large_body_is_no_fault_of_the_body(
    edge: Edge, replicas: tuple[Replica, Replica], path: str
) -> None:
    """A 413 would not be tried again."""
    for replica in replicas:
        replica.script = hang_up
    answer = edge.http.post(path, content=b"x" * 2 * 1024 * 1024)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer.headers["Retry-After"] == "1"


def test_chunked_body_is_limited(edge: Edge) -> None:
    answer = edge.http.post("/v1/agents/a/invoke", content=iter([b"x" * 100_000] * 20))
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_slow_client_is_cut_off_before_a_replica(replicas: tuple[Replica, Replica], tmp_path: Path) -> None:
    def hurry(folder: Path) -> None:
        conf = folder / "slipway" / "server.conf"
        conf.write_text(conf.read_text().replace("_timeout 10s;", "_timeout 1s;"))

    with Edge(tmp_path / "n", [r.port for r in replicas], hurry) as edge:
        assert b"200 OK" not in raw(edge, b"GET / HTTP/1.1\r\nHost: a\r\n")  # headers never end
        body = b"POST /v1/agents/a/invoke HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf"
        assert b"200 OK" not in raw(edge, body)
        assert not any(replica.seen for replica in replicas)


def test_connections_per_address_are_limited(replicas: tuple[Replica, Replica], tmp_path: Path) -> None:
    def narrow(folder: Path) -> None:
        conf = folder / "slipway" / "server.conf"
        conf.write_text(conf.read_text().replace("slipway_address 4096", "slipway_address 1"))

    go = threading.Event()

    def wait(handler: BaseHTTPRequestHandler) -> None:
        go.wait(20)
        say(200, {})(handler)

    for replica in replicas:
        replica.script = wait
    with Edge(tmp_path / "n", [r.port for r in replicas], narrow) as edge:
        first = threading.Thread(target=lambda: edge.http.get("/"))
        first.start()
        wait_until(lambda: any(replica.seen for replica in replicas), "the first request is under way")
        answer = edge.http.get("/")
        go.set()
        first.join(20)
    assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
    assert answer.headers["Retry-After"] == "1"


def test_json_is_compressed_and_event_streams_are_not(edge: Edge, replicas: tuple[Replica, Replica]) -> None:
    def events(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        handler.wfile.write(b": x\n\n" * 1000)

    for replica in replicas:
        replica.script = say(200, {"text": "x" * 5000})
    assert edge.http.get("/v1/runs").headers["Content-Encoding"] == "gzip"
    for replica in replicas:
        replica.script = events
    assert "Content-Encoding" not in edge.http.get("/v1/runs/x/events").headers


def test_log_is_json_without_secrets(edge: Edge) -> None:
    edge.http.get(
        "/v1/runs?token=sesame", headers={"X-Request-ID": "logged-1", "Authorization": "Bearer sesame"}
    )
    edge.http.request("DELETE", "/metrics", headers={"X-Request-ID": "logged-2"})
    wait_until(lambda: "logged-2" in (edge.folder / "access.log").read_text(), "the line is written")
    lines = {line["request_id"]: line for line in edge.log()}
    assert (lines["logged-1"]["method"], lines["logged-1"]["path"], lines["logged-1"]["status"]) == (
        "GET", "/v1/runs", 200)  # fmt: skip
    assert lines["logged-1"]["upstream"].startswith("127.0.0.1:")
    assert (lines["logged-2"]["method"], lines["logged-2"]["path"], lines["logged-2"]["status"]) == (
        "DELETE", "/metrics", 404)  # fmt: skip
    assert "sesame" not in (edge.folder / "access.log").read_text()


SECRETS = {"Referer": "https://portal.example/?token=sesame", "Authorization": "Bearer sesame"}


def test_logs_contain_no_query_string_or_referer(tmp_path: Path) -> None:
    """Cover every failure: a replica refuses, hangs up, is silent or sends garbage; invalid and too large requests."""

    def nonsense(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Big: " + b"a" * 40_000 + b"\r\n\r\n")

    def hurry(folder: Path) -> None:
        conf = folder / "slipway" / "proxy.conf"
        conf.write_text(conf.read_text().replace("proxy_read_timeout 30s", "proxy_read_timeout 1s"))

    silence = threading.Event()
    with Replica() as replica, Edge(tmp_path / "n", [1, replica.port], hurry) as edge:
        for script in (hang_up, nonsense, say(503, {}), lambda _: silence.wait(20), None):
            replica.script = script
            edge.http.get("/v1/runs?token=sesame", headers=SECRETS)
        silence.set()
        edge.http.post("/v1/auth/login?token=sesame", content=b"x" * 1_200_000, headers=SECRETS)
        raw(
            edge, b"TRACE /?token=sesame HTTP/1.1\r\nHost: a\r\nReferer: /sesame\r\nConnection: close\r\n\r\n"
        )
        raw(edge, b"GET /?token=sesame HTTP/1.1\r\nHost: a b\r\nReferer: /sesame\r\n\r\n")
        raw(edge, b"GET /?token=sesame HTTP/1.1\r\nHost: a\r\nX-Big: " + b"a" * 20_000 + b"\r\n\r\n")
        raw(edge, b"GET /?token=sesame" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n")
        edge.http.get("/metrics?token=sesame", headers={**SECRETS, "X-Request-ID": "the-last"})
        wait_until(lambda: "the-last" in (edge.folder / "access.log").read_text(), "the last line")
        every = {
            503,
            413,
            405,
            400,
            431,
            414,
            404,
            200,
        }  # a worker of nginx may log after another's last line
        wait_until(lambda: every <= {line["status"] for line in edge.log()}, "a line of each kind")
        assert all(line["upstream_status"] for line in edge.log() if line["status"] in (503, 504))
    assert "sesame" not in (edge.folder / "access.log").read_text()
    assert "sesame" not in (edge.folder / "error.log").read_text()


def test_tls_redirect_leads_to_the_service_and_logs_no_query_string(tmp_path: Path) -> None:
    plain = free_port()

    def redirect_only(folder: Path) -> None:
        text = (ROOT / "nginx" / "sites" / "tls.conf").read_text()
        start, end = text.index("server {"), text.index("server {", text.index("server {") + 1)
        server = text[start:end].replace("listen 80;", f"listen 127.0.0.1:{plain};")
        server = server.replace("    listen [::]:80;\n", "").replace(
            "/var/log/nginx/slipway.log", f"{folder}/tls.log"
        )
        with (folder / "site.conf").open("a") as site:
            site.write(server)

    with Edge(tmp_path / "n", [1, 2], redirect_only) as edge:
        asked = {**SECRETS, "Host": "evil.example"}
        answer = httpx2.get(f"http://127.0.0.1:{plain}/v1/runs?token=sesame", headers=asked, trust_env=False)
        wanted = "https://slipway.example.com/v1/runs?token=sesame"
        assert (answer.status_code, answer.headers["Location"]) == (301, wanted)
        wait_until(lambda: "301" in (edge.folder / "tls.log").read_text(), "the line")
    assert "sesame" not in (edge.folder / "tls.log").read_text() + (edge.folder / "error.log").read_text()
