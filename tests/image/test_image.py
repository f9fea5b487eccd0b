"""Container image: contents, start and stop."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from service import __version__
from tests.conftest import wait_until
from tests.image.engine import ROOT, docker

DOCKERFILE = (ROOT / "Dockerfile").read_text()
NARROW = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "none"]
WRITABLE = ["--tmpfs", "/tmp:mode=1777", "--tmpfs", "/var/lib/slipway:mode=1777"]


LAUNCHER = ["python", "-m", "launcher"]
VOLUME = ["--volume", "/var/lib/slipway"]  # gets the image's owner, as a named one does


@contextmanager
def started(*arguments: str) -> Iterator[str]:
    """Of `docker run ARGUMENTS`: the container's id; it is removed at the end."""
    container = docker("run", "--detach", *NARROW, *arguments).stdout.strip()
    try:
        yield container
    finally:
        docker("rm", "--force", "--volumes", container, check=False)


def inside(image: str, script: str) -> str:
    return docker("run", "--rm", *NARROW, *WRITABLE, image, "sh", "-c", script).stdout.strip()


def logs(container: str) -> str:
    done = docker("logs", container)
    return done.stdout + done.stderr


def inspected(container: str) -> dict[str, Any]:
    (found,) = json.loads(docker("inspect", container).stdout)
    return dict(found)


def health_check(container: str) -> list[str]:
    """The image's own check, to be run when the test wants it rather than when its time comes."""
    kind, *command = inspected(container)["Config"]["Healthcheck"]["Test"]
    assert kind == "CMD"
    return [str(word) for word in command]


def test_dockerfile_uses_classic_builder_syntax() -> None:
    assert "ARG PYTHON_IMAGE=python:3.12-slim\n" in DOCKERFILE  # the pipeline puts a digest in its place
    assert len(re.findall(r"(?m)^FROM \$\{PYTHON_IMAGE\}( AS builder)?$", DOCKERFILE)) == 2
    assert "<<" not in DOCKERFILE and "--link" not in DOCKERFILE
    assert re.search(r"(?m)^USER 10001:10001$", DOCKERFILE)
    assert re.search(r"(?m)^CMD \[", DOCKERFILE), "the exec form: Gunicorn itself gets the SIGTERM"


def test_the_image_is_let_in_by_name_only() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    let_in = {line[1:].rstrip("/") for line in lines if line.startswith("!")}
    assert not {".", ".git", ".env", "var", "tests", "secrets", ".venv"} & let_in
    assert all((ROOT / name).exists() for name in let_in)


def test_image_user_and_contents(image: str) -> None:
    assert inside(image, "id -u; id -g").split() == ["10001", "10001"]
    there = set(inside(image, "ls -A /app").split()) - {"__pycache__"}
    assert there == {
        "LICENSE", "agent_server", "agents", "alembic.ini", "config", "gunicorn.conf.py", "launcher", "mcp.yaml",
        "mcp_servers", "migrations", "offline_model", "requirements-providers.txt", "requirements.txt", "service",
        "worker.py", "wsgi.py",
    }  # fmt: skip
    tools = "gcc cc make git pip pip3 uv curl wget"
    assert inside(image, f"for tool in {tools}; do command -v $tool; done; true") == ""
    assert (
        inside(image, "find / -xdev -writable -type f -not -path '/proc/*' -not -path '/dev/*' 2>/dev/null")
        == ""
    )
    assert inside(image, "find /app -name '.env*' -o -name '*.db' -o -name '*.pem' -o -name '*.sock'") == ""


def test_image_labels_are_version_and_licence(image: str) -> None:
    (found,) = json.loads(docker("image", "inspect", image).stdout)
    labels = found["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_image_holds_bytecode_of_every_module(image: str) -> None:
    count = "find /app/service -name '*.py' | wc -l; find /app/service -name '*.pyc' | wc -l"
    sources, compiled = inside(image, count).split()
    assert sources == compiled


def test_production_refuses_to_start_without_its_settings(image: str) -> None:
    with started(*WRITABLE, image) as container:
        assert docker("wait", container).stdout.strip() != "0"
        said = logs(container)
    for setting in ("SECRET_KEY", "DATABASE_URL", "REDIS_URL", "ANTHROPIC_API_KEY"):
        assert setting in said
    assert "Traceback" not in said


def test_everything_in_one_container_for_a_first_look(image: str) -> None:
    """The command of docs/deploy.md: embedded Redis, SQLite and the offline model, on a read-only root."""
    with started(*WRITABLE[:2], *VOLUME, "--env", "APP_ENV=development", image, *LAUNCHER) as container:
        wait_until(lambda: "Slipway is up" in logs(container), "the launcher's banner")
        assert docker("exec", container, *health_check(container)).returncode == 0
        docker("stop", "--time", "40", container)
        assert inspected(container)["State"]["ExitCode"] == 0


def test_the_health_check_fails_when_nothing_answers(image: str) -> None:
    with started(*WRITABLE, image, "sleep", "60") as container:
        assert docker("exec", container, *health_check(container), check=False).returncode != 0
