"""Compose file: its rules, and all services running, as a demo and as production."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from tests.conftest import free_port, wait_until
from tests.image.engine import ROOT, Compose, composed

TEXT = (ROOT / "docker-compose.yml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
DEPLOY = (ROOT / "docs" / "deploy.md").read_text()

pytestmark = pytest.mark.timeout(600)  # a whole fleet starts, more than once


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_hardened_and_bounded(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"] and service["cpus"] and service["pids_limit"]
    assert service["logging"]["options"]["max-size"]


def test_only_nginx_is_published_and_only_the_service_sees_the_data() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["nginx"]
    assert SERVICES["nginx"]["networks"] == ["edge"]
    assert SERVICES["redis"]["networks"] == SERVICES["postgres"]["networks"] == ["data"]
    assert yaml.safe_load(TEXT)["networks"]["data"] == {"internal": True}


def test_no_secret_stands_in_the_file() -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|KEY|DATABASE_URL", name):
                assert value is None or (name.endswith("_FILE") and "/run/secrets/" in value)


def test_the_replicas_are_equal_and_stop_in_peace() -> None:
    further = {
        name: value for name, value in SERVICES["slipway-more"].items() if name not in ("profiles", "scale")
    }
    assert SERVICES["slipway-1"] == SERVICES["slipway-2"] == further
    grace = int(SERVICES["slipway-1"]["stop_grace_period"].rstrip("s"))
    assert grace > 30 + 5, "GRACEFUL_TIMEOUT and what Gunicorn adds"


def test_worker_differs_from_a_replica_in_its_command_only() -> None:
    worker = {
        name: value for name, value in SERVICES["worker"].items() if name not in ("command", "healthcheck")
    }
    own = {"TASK_METRICS_PORT": "${TASK_METRICS_PORT:-9100}"}
    replica = SERVICES["slipway-1"]
    networks = ["edge", "data"]  # and not the name that nginx asks
    assert worker == {**replica, "environment": {**replica["environment"], **own}, "networks": networks}
    assert worker["restart"] == "unless-stopped"  # Celery exits when Redis dies


def test_what_a_fresh_clone_starts_is_the_demo_apart_from_production() -> None:
    """Compose reads these two files by itself; COMPOSE_FILE of the docs leaves the second out."""
    override = (ROOT / "docker-compose.override.yml").read_text()
    assert "\nname: slipway-demo" in override and TEXT.count("\nname: slipway\n") == 1
    assert "127.0.0.1:${SLIPWAY_PORT" in override
    assert "echo COMPOSE_FILE=docker-compose.yml >> .env" in DEPLOY


@pytest.fixture(scope="module")
def demo(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    port = free_port()
    files = ("docker-compose.yml", "docker-compose.override.yml")
    with composed(tmp_path_factory.mktemp("demo"), *files, SLIPWAY_PORT=str(port)) as compose:
        compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", "120")
        yield compose


def address(compose: Compose) -> str:
    return f"http://127.0.0.1:{compose.env['SLIPWAY_PORT']}"


def signed_in(url: str, username: str, password: str, trusted: Path | None = None) -> httpx2.Client:
    verify = ssl.create_default_context(cafile=trusted) if trusted else True
    client = httpx2.Client(base_url=url, timeout=60, trust_env=False, verify=verify)
    answer = client.post("/v1/auth/login", json={"username": username, "password": password})
    assert answer.status_code == 200, answer.text
    client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
    return client


def ask(client: httpx2.Client, question: str = "How do I get a refund?") -> httpx2.Response:
    return client.post("/v1/agents/support/invoke", json={"input": question, "cache": "bypass"})


def test_the_demo_answers_without_a_key(demo: Compose) -> None:
    with closing(signed_in(address(demo), "demo", "demo-password")) as client:
        answer = ask(client)
        assert (answer.status_code, answer.json()["status"]) == (200, "succeeded"), answer.text
        assert answer.json()["sources"]
        events = client.post("/v1/agents/support/stream", json={"input": "How do I get a refund?"}).text
        assert "event: run.completed" in events
        assert client.get("/metrics").status_code == 404
        wait_until(lambda: client.get("/ready").json()["status"] == "ok", "database, Redis, model and worker")


def test_nginx_answers_as_the_service_alone(demo: Compose) -> None:
    """The image's own default.conf would say `Welcome to nginx!` on port 80."""
    at_80 = "wget -q -O - http://127.0.0.1:80/ || echo nobody"
    assert demo("exec", "-T", "nginx", "sh", "-c", at_80).strip() == "nobody"


def test_a_recreated_replica_is_found_at_its_new_address(demo: Compose) -> None:
    """The only one there is, and nginx is not told."""
    demo("stop", "slipway-2")
    demo("up", "--detach", "--no-build", "--no-deps", "--force-recreate", "--wait", "slipway-1")
    with closing(httpx2.Client(base_url=address(demo), timeout=30, trust_env=False)) as client:
        wait_until(lambda: client.get("/ready").status_code == 200, "the replica's new address")
        assert all(client.get("/ready").status_code == 200 for _ in range(6))
    demo("up", "--detach", "--no-build", "--no-deps", "--wait", "slipway-2")


def test_the_demo_works_off_a_task(demo: Compose) -> None:
    with closing(signed_in(address(demo), "demo", "demo-password")) as client:
        queued = client.post("/v1/agents/support/tasks", json={"input": "How do I get a refund?"})
        assert queued.status_code == 202
        where = queued.headers["Location"]
        wait_until(lambda: client.get(where).json()["status"] == "succeeded", "the end of the task")


def test_the_demo_lives_on_with_one_replica(demo: Compose) -> None:
    with closing(signed_in(address(demo), "demo", "demo-password")) as client:
        demo("stop", "slipway-1")
        assert demo.exit_code("slipway-1") == 0
        assert [ask(client, f"Question {n}?").status_code for n in range(6)] == [200] * 6
        demo("start", "slipway-1")


def test_maintenance_as_the_docs_say(demo: Compose) -> None:
    switch, back = shell_block("slipway.maintenance").replace("docker compose exec", "exec -T").splitlines()
    with closing(httpx2.Client(base_url=address(demo), timeout=30, trust_env=False)) as client:
        demo(*switch.split())
        assert (client.get("/v1/agents").status_code, client.get("/health").status_code) == (503, 200)
        demo(*back.split())
        assert client.get("/v1/agents").status_code == 401


def test_doctor_finds_nothing_to_mend_on_a_disk(demo: Compose) -> None:
    """A memory file system of the container's is not the service's to change, and no other user is there."""
    said = demo("exec", "-T", "slipway-1", "flask", "doctor")
    assert "GiB free" in said and "chmod" not in said


def test_replica_logs_are_json(demo: Compose) -> None:
    lines = demo("logs", "--no-log-prefix", "slipway-2").splitlines()
    assert lines and all(isinstance(json.loads(line), dict) for line in lines)


@pytest.mark.parametrize(
    "files", [("docker-compose.yml",), ("docker-compose.yml", "docker-compose.override.yml")]
)
def test_every_line_of_env_reaches_every_replica(image: str, tmp_path: Path, files: tuple[str, ...]) -> None:
    """`.env.example` with each of its lines switched on, as Compose itself reads it."""
    lines = re.sub(r"(?m)^#([A-Z_]+)=(.*)$", r"\1=\2", (ROOT / ".env.example").read_text())
    wanted = dict(re.findall(r"(?m)^([A-Z_]+)=(.*)$", lines))
    with composed(tmp_path, *files) as compose:
        (tmp_path / ".env").write_text(lines)
        (tmp_path / "secrets").mkdir()
        for name in yaml.safe_load(TEXT)["secrets"]:
            (tmp_path / "secrets" / name).touch()
        told = json.loads(compose("config", "--format", "json"))["services"]
    decided = {"APP_ENV", "HOST", "PORT", "SLIPWAY_HOME", "TASK_METRICS_PORT"}
    if len(files) > 1:
        decided |= {
            "DATABASE_URL",
            "ANTHROPIC_BASE_URL",
            "ANTHROPIC_API_KEY",
            "BOOTSTRAP_USERNAME",
            "BOOTSTRAP_PASSWORD",
        }
    for service in ("slipway-1", "slipway-2", "worker", "migrate"):
        environment = told[service]["environment"]
        for name in wanted.keys() - decided:
            assert environment[name] == wanted[name] or not wanted[name], (service, name)


def shell_block(containing: str) -> str:
    """The one shell block of docs/deploy.md that holds these words."""
    (found,) = [block for block in re.findall(r"```sh\n(.*?)```", DEPLOY, re.DOTALL) if containing in block]
    return str(found)


CERTIFICATE = """
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \\
    -addext subjectAltName=DNS:localhost -keyout secrets/tls_key -out secrets/tls_certificate
"""


def test_production_with_the_secrets_that_the_docs_make(image: str, tmp_path: Path) -> None:
    """Everything as in production, but that the address of the model is the offline model's."""
    port = free_port()
    (tmp_path / "model.yml").write_text(
        "x-base: &base {environment: {ANTHROPIC_BASE_URL: 'http://offline-model:8099'}}\n"
        "services:\n"
        "  slipway-1: *base\n  slipway-2: *base\n  worker: *base\n  migrate: *base\n"
        "  offline-model:\n"
        f"    image: '{image}'\n"
        "    command: [python, -m, offline_model, --host, 0.0.0.0]\n"
        "    networks: [data]\n"
        "    environment: {PORT: '8099'}\n"
    )
    make_secrets = shell_block("secrets/anthropic_api_key").replace("sk-ant-…", "sk-ant-not-a-real-one")
    subprocess.run(["bash", "-euc", f"{make_secrets}\n{CERTIFICATE}"], cwd=tmp_path, check=True, timeout=30)
    made = {each.stat().st_mode & 0o777 for each in (tmp_path / "secrets").iterdir()}
    assert made == {0o644}, "readable to the container's user, and to be filled by their owner"
    secure, plain = f"https://localhost:{port}", f"127.0.0.1:{free_port()}"
    settings = {"NGINX_SITE": "compose-tls", "SLIPWAY_TLS_PORT": f"127.0.0.1:{port}", "SLIPWAY_PORT": plain}
    files = ("docker-compose.yml", "model.yml")
    with composed(tmp_path, *files, **settings) as compose:
        compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", "120")
        assert compose.exit_code("migrate") == 0
        password = (tmp_path / "secrets" / "bootstrap_password").read_text().strip()
        trusted = tmp_path / "secrets" / "tls_certificate"
        with closing(signed_in(secure, "admin", password, trusted)) as client:
            assert ask(client).headers["Strict-Transport-Security"] == "max-age=31536000"
            rolling_restart(compose, client)
        said = compose("logs")
        assert password not in said and "sk-ant-not-a-real-one" not in said


def rolling_restart(compose: Compose, client: httpx2.Client) -> None:
    """As docs/deploy.md says, one replica after the other, and never an error in between."""
    for replica in ("slipway-1", "slipway-2"):
        compose("up", "--detach", "--no-build", "--no-deps", "--force-recreate", "--wait", replica)
        assert all(ask(client, f"Question {n}?").status_code == 200 for n in range(6))
