"""nginx configuration files: valid, with the directives that the design needs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from config.base import Settings
from service.error_table import all_errors
from tests.nginx.edge import ROOT, Edge, resolver, scratch_paths

NGINX_FILES = ROOT / "nginx"
SERVER = (NGINX_FILES / "slipway" / "server.conf").read_text()
PROXY = (NGINX_FILES / "slipway" / "proxy.conf").read_text()
WORDS = (NGINX_FILES / "slipway" / "http.conf").read_text()


def locations() -> dict[str, str]:
    """Parse the locations of the server block with their bodies."""
    return dict(re.findall(r"(?m)^location (.+?) \{\n(.*?)^\}", SERVER, re.DOTALL))


def words(name: str) -> dict[int, str]:
    """Parse a `map $status $name` as status to value."""
    body = re.search(rf"map \$status \$slipway_{name} \{{(.*?)\n\}}", WORDS, re.DOTALL)
    assert body
    return {int(status): value.strip('"') for status, value in re.findall(r"(\d{3}) (.+);", body[1])}


def test_compose_configuration_is_valid(tmp_path: Path) -> None:
    done = Edge(tmp_path / "n", [1, 2]).check()
    assert done.returncode == 0, done.stderr


def test_tls_configuration_is_valid(tmp_path: Path) -> None:
    def tls(folder: Path) -> None:
        certificate(folder)
        site = folder / "site.conf"
        text = (NGINX_FILES / "sites" / "tls.conf").read_text()
        text = text.replace("/etc/letsencrypt/live/slipway.example.com", str(folder))
        site.write_text(text.replace("/var/log/nginx", str(folder)))

    done = Edge(tmp_path / "n", [1, 2], tls).check()
    assert done.returncode == 0, done.stderr
    assert "emerg" not in done.stderr


def test_compose_configuration_with_tls_is_valid(tmp_path: Path) -> None:
    done = Edge(tmp_path / "n", [1, 2], compose_tls).check()
    assert done.returncode == 0, done.stderr
    assert "emerg" not in done.stderr


def compose_tls(folder: Path) -> None:
    """Put the site with TLS of docker-compose.yml in place of the plain one, and its files into the folder."""
    certificate(folder)
    resolver(folder, "127.0.0.53")
    text = (NGINX_FILES / "sites" / "compose-tls.conf").read_text()
    text = text.replace("/run/secrets/tls_certificate", f"{folder}/fullchain.pem")
    text = text.replace("/run/secrets/tls_key", f"{folder}/privkey.pem")
    text = text.replace("include /run/", f"include {folder}/").replace("/dev/stdout", f"{folder}/access.log")
    (folder / "site.conf").write_text(scratch_paths(folder) + text)


def certificate(folder: Path) -> None:
    names = ["-keyout", f"{folder}/privkey.pem", "-out", f"{folder}/fullchain.pem"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command = [
        "openssl",
        "req",
        "-x509",
        *kind,
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=slipway.example.com",
        *names,
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=20)


def test_upstream_has_two_replicas_that_are_never_banned() -> None:
    text = (NGINX_FILES / "sites" / "tls.conf").read_text()
    assert len(re.findall(r"(?m)^\s+server \S+:\d+ max_fails=0;", text)) >= 2
    assert "least_conn;" in text and "zone slipway" in text
    assert not re.search(r"(?m)^\s*keepalive ", text), "see ADR 3"


def test_default_site_of_the_image_is_not_included() -> None:
    """Exclude the image's conf.d/default.conf, which would answer on port 80."""
    assert re.findall(r"include (.+);", (NGINX_FILES / "nginx.conf").read_text()) == ["site.conf"]


@pytest.mark.parametrize("site", ["compose.conf", "compose-tls.conf", "tls.conf"])
def test_every_server_sets_its_logs(site: str) -> None:
    """Check each server: an inherited log would contain query strings."""
    text = (NGINX_FILES / "sites" / site).read_text()
    for server in re.findall(r"(?ms)^server \{.*?^\}", text):
        assert re.search(r"access_log \S+ slipway;", server)
        assert "include slipway/server.conf;" in server or "error_log /dev/null emerg;" in server
    assert "error_log /dev/null emerg;" in SERVER


def test_streams_are_never_buffered() -> None:
    # Over chunked HTTP/1.1 events pass even with buffering on, so the directive itself is held as well.
    streams = [body for path, body in locations().items() if re.search(r"stream|events|chat\$", path)]
    assert len(streams) == 3
    for body in streams:
        assert "proxy_buffering off;" in body


def test_service_errors_are_not_passed_to_another_replica() -> None:
    for line in re.findall(r"proxy_next_upstream (.+);", SERVER + PROXY):
        assert "http_502" not in line and "http_500" not in line and "http_504" not in line
    assert "proxy_next_upstream_tries 0;" in PROXY
    assert re.search(r"(?m)^proxy_next_upstream_timeout \d+s;", PROXY)


def test_retried_posts_always_have_an_idempotency_key() -> None:
    """Compare the paths with `non_idempotent` and those of the map that creates keys."""
    replayable = [path for path, body in locations().items() if "non_idempotent" in body]
    keyed = re.findall(r'"~\^POST (\S+)\$" "auto-\$request_id";', WORDS)
    examples = [
        "/v1/agents/a/invoke",
        "/v1/agents/a/stream",
        "/v1/agents/a/tasks",
        "/v1/runs/run_1/fork",
        "/v1/chat/completions",
        "/v1/responses",
        "/v1/sessions",
        "/v1/approvals/x",
    ]
    others = [
        "/",
        "/v1/auth/login",
        "/v1/messages",  # may have been paid for
        "/v1/sessions/x",
        "/v1/responses/x",
        "/v1/responses/x/cancel",
        "/v1/runs/x/cancel",
    ]
    for path in examples + others:
        passed_on = any(re.search(p.removeprefix("~ "), path) for p in replayable)
        has_key = any(re.fullmatch(p, path) for p in keyed)
        assert passed_on == has_key == (path in examples), path


def test_bodies_with_images_pass_where_the_service_takes_them() -> None:
    """A little over DOOR_BODY_LIMIT, so that a body at the edge is judged by the service; others as before."""
    most = {
        path: size for path, body in locations().items() for size in re.findall("max_body_size (.+);", body)
    }
    assert most == {
        "~ ^/v1/(chat/completions|responses)$": "33m",
        "~ ^/v1/messages(/count_tokens)?$": "33m",
        "= /_problem": "0",
        "= /_maintenance.json": "0",
        "= /_maintenance.html": "0",
        "~ ^/v1/admin/knowledge/[^/]+$": "33m",
    }
    assert Settings.model_fields["door_body_limit"].default == 32 * 1024 * 1024
    assert re.findall(r"(?m)^client_max_body_size (.+);", SERVER) == ["1100k"]


def test_nginx_errors_match_the_error_tree() -> None:
    tree = {(error.status, error.code): error.title for error in all_errors()}
    for status, code in words("code").items():
        assert words("title")[status] == tree[status, code]
    documented = (ROOT / "docs" / "deploy.md").read_text()
    assert all(f"`{code}`" in documented for code in words("code").values())
