"""Files for clouds: their settings load, their times fit, their shape is right, and nginx runs beside the replica."""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from config import Settings, load
from tests.conftest import ROOT
from tests.deploy.cloud_schemas import SCHEMAS
from tests.deploy.clouds import FOLDER, Container, all_containers, modal_constants, read
from tests.nginx.edge import Edge, Replica, group_of, scratch_paths

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
CONTAINERS = all_containers()
GUNICORN_ADDS = 5  # seconds, see docs/running.md
MADE_UP = {
    "DATABASE_URL": "postgresql://slipway:6f1c9b7e0d2a@127.0.0.1:9/slipway",
    "REDIS_URL": "rediss://:9d0b2c7e6f1a@127.0.0.1:9/0",
    "SECRET_KEY": "rT7vQx2mLp9sZk4wYb8nHc3jFd6gKa1eUo5iVq0",
    "ANTHROPIC_API_KEY": "sk-ant-not-a-real-one",
    "BOOTSTRAP_PASSWORD": "Vq7mLp2sZk9wYb",
}


def settings(container: Container) -> Settings:
    return load(container.settings | {name: MADE_UP[name] for name in container.secrets})


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda each: each.cloud)
def test_settings_are_the_codes_own_and_enough(container: Container) -> None:
    own = settings(container)
    assert own.environment == "production"
    assert set(container.settings) <= {name.upper() for name in Settings.model_fields} | {"APP_ENV"}
    assert not container.secrets & set(container.settings)
    if container.port is not None:
        assert own.port == container.port


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda each: each.cloud)
def test_a_container_that_stops_has_the_time_for_it(container: Container) -> None:
    if container.command != COMPOSE["migrate"]["command"]:
        assert container.grace is not None
        assert container.grace > settings(container).graceful_timeout + GUNICORN_ADDS


def test_commands_are_those_of_compose() -> None:
    known = [None, COMPOSE["worker"]["command"], COMPOSE["migrate"]["command"]]
    assert all(container.command in known for container in CONTAINERS)
    for cloud in {container.cloud for container in CONTAINERS} - {"modal"}:
        found = [container.command for container in CONTAINERS if container.cloud == cloud]
        assert None in found and COMPOSE["migrate"]["command"] in found


@pytest.mark.parametrize("path", SCHEMAS)
def test_files_have_the_fields_of_their_reference_and_no_others(path: str) -> None:
    jsonschema.validate(read(path), SCHEMAS[path])
    wrong = read(path)
    wrong["spce"] = {}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, SCHEMAS[path])


def test_balancers_ask_nginx_and_nginx_asks_the_replica() -> None:
    site = (ROOT / "nginx" / "sites" / "sidecar.conf").read_text()
    dockerfile = (FOLDER / "edge" / "Dockerfile").read_text()
    (listens,) = re.findall(r"listen ([0-9]+) default_server", site)
    (asks,) = re.findall(r"server 127\.0\.0\.1:([0-9]+)", site)
    assert f"EXPOSE {listens}\n" in dockerfile
    assert f"FROM {COMPOSE['nginx']['image']}\n" in dockerfile
    cloud_run = read("cloud-run/service.yaml")["spec"]["template"]["spec"]["containers"][0]
    assert [port["containerPort"] for port in cloud_run["ports"]] == [int(listens)]
    azure = read("azure-container-apps/app.yaml")["properties"]["configuration"]
    assert azure["ingress"]["targetPort"] == int(listens)
    resources = read("ecs/slipway.yaml")["Resources"]
    nginx = resources["WebTask"]["Properties"]["ContainerDefinitions"][0]
    assert [port["ContainerPort"] for port in nginx["PortMappings"]] == [int(listens)]
    assert resources["Targets"]["Properties"]["Port"] == int(listens)
    assert resources["Targets"]["Properties"]["HealthCheckPath"] == "/health", "ECS replaces what fails it"
    for container in CONTAINERS:
        if container.port is not None:
            assert container.port == int(asks)


@pytest.mark.nginx
def test_nginx_of_the_sidecar_image_answers(tmp_path: Path) -> None:
    """The files that deploy/edge/Dockerfile copies, each where it copies it."""
    folder = tmp_path / "n"
    with Replica() as replica:
        edge = Edge(folder, [replica.port])
        for path in ("slipway", "nginx.conf", "site.conf"):
            shutil.rmtree(folder / path) if (folder / path).is_dir() else (folder / path).unlink()
        for source, target in re.findall(
            r"^COPY (\S+) /etc/nginx/(\S+)$", (FOLDER / "edge" / "Dockerfile").read_text(), re.M
        ):
            copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
            copy(ROOT / source, folder / target)
        site = (folder / "site.conf").read_text()
        site = re.sub(r"(?ms)^upstream slipway \{.*?^\}\n", lambda _: group_of([replica.port]), site)
        site = site.replace("listen 8080", f"listen 127.0.0.1:{edge.port}")
        site = site.replace("/dev/stdout", f"{folder}/access.log")
        (folder / "site.conf").write_text(scratch_paths(folder) + site)
        with edge:
            headers = {"X-Forwarded-For": "198.51.100.1, 203.0.113.7"}
            answer = edge.http.get("/v1/agents", headers=headers)
            assert (answer.status_code, answer.headers["Strict-Transport-Security"]) == (
                200,
                "max-age=31536000",
            )
            assert replica.seen[-1][2]["x-forwarded-for"] == "203.0.113.7"
            assert edge.http.get("/metrics").status_code == 404


def imported(paths: list[Path]) -> set[str]:
    """Return the top-level names that files import."""
    found = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(str(node.module).partition(".")[0])
    return found


def test_modal_gets_all_that_a_replica_imports() -> None:
    """No nginx is in front there, so its metrics are off."""
    found = modal_constants()
    assert found["SETTINGS"]["METRICS_ENABLED"] == "false"
    assert all((ROOT / name).exists() for name in (*found["FOLDERS"], *found["FILES"]))
    assert {"agents", "migrations"} < set(found["FOLDERS"]), "read at run time"
    paths = [path for name in found["FOLDERS"] for path in (ROOT / name).rglob("*.py")]
    paths += [ROOT / name for name in found["FILES"] if name.endswith(".py")]
    ours = {path.stem for path in ROOT.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert imported(paths) & ours <= {*found["FOLDERS"], *(Path(name).stem for name in found["FILES"])}


@pytest.mark.skipif(importlib.util.find_spec("modal") is None, reason="the package modal is not installed")
def test_modals_own_package_takes_the_file() -> None:
    command = [sys.executable, str(FOLDER / "modal" / "slipway.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("cfn-lint") is None, reason="cfn-lint is not installed")
def test_cloudformation_template_is_clean() -> None:
    done = subprocess.run(
        ["cfn-lint", str(FOLDER / "ecs" / "slipway.yaml")],
        cwd="/",  # its shim may ask for the Python of the folder
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
