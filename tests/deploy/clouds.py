"""Containers of the clouds' files in deploy/, in one form."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT

FOLDER = ROOT / "deploy"
COMMANDS = {"slipway": None, "worker": "worker", "migrate": "migrate"}


class _Tags(yaml.SafeLoader):
    """YAML with CloudFormation's tags, whose values stay as they are."""


_Tags.add_multi_constructor("!", lambda loader, tag, node: f"!{tag} {node.value}")


@dataclass
class Container:
    """One container with Slipway's own code. `grace`: seconds from SIGTERM to SIGKILL; None where nothing waits."""

    cloud: str
    settings: dict[str, str]
    secrets: set[str]
    command: list[str] | None
    port: int | None
    grace: int | None = None


def read(path: str) -> Any:
    return yaml.load((FOLDER / path).read_text(), _Tags)


def _cloud_run() -> Iterator[Container]:
    service = read("cloud-run/service.yaml")["spec"]["template"]["spec"]
    job = read("cloud-run/migrate.yaml")["spec"]["template"]["spec"]["template"]["spec"]
    for spec, grace in ((service, 10), (job, None)):  # the platform's own seconds
        each = spec["containers"][-1]
        probes = [each[kind]["httpGet"]["port"] for kind in each if kind.endswith("Probe")]
        plain = {entry["name"]: entry["value"] for entry in each["env"] if "value" in entry}
        hidden = {entry["name"] for entry in each["env"] if "valueFrom" in entry}
        yield Container("cloud-run", plain, hidden, each.get("command"), *set(probes) or {None}, grace)


def _azure() -> Iterator[Container]:
    for file in ("app", "migrate"):
        properties = read(f"azure-container-apps/{file}.yaml")["properties"]
        template = properties["template"]
        each = template["containers"][-1]
        probes = {probe["httpGet"]["port"] for probe in each.get("probes", ())}
        plain = {entry["name"]: entry["value"] for entry in each["env"] if "value" in entry}
        hidden = {entry["name"]: entry["secretRef"] for entry in each["env"] if "secretRef" in entry}
        assert set(hidden.values()) == {one["name"] for one in properties["configuration"]["secrets"]}
        grace = template.get("terminationGracePeriodSeconds")
        yield Container("azure", plain, set(hidden), each.get("command"), *probes or {None}, grace)


def _ecs() -> Iterator[Container]:
    resources = read("ecs/slipway.yaml")["Resources"]
    for name in ("WebTask", "WorkerTask", "MigrateTask"):
        each = resources[name]["Properties"]["ContainerDefinitions"][-1]
        plain = {entry["Name"]: entry["Value"] for entry in each["Environment"]}
        hidden = {entry["Name"] for entry in each["Secrets"]}
        port = 8000 if "127.0.0.1:8000/health" in str(each.get("HealthCheck")) else None
        yield Container("ecs", plain, hidden, each.get("Command"), port, each.get("StopTimeout"))


def modal_constants() -> dict[str, Any]:
    """Return the literal constants of the Modal file, which only a machine with Modal's package can import."""
    tree = ast.parse((FOLDER / "modal" / "slipway.py").read_text())
    found: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).isupper():
            found[ast.unparse(node.targets[0])] = ast.literal_eval(node.value)
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in ("exit_grace_period", "port"):
            found[node.arg] = ast.literal_eval(node.value)
    return found


def _modal() -> Iterator[Container]:
    found = modal_constants()
    named = {"DATABASE_URL", "REDIS_URL", "SECRET_KEY", "ANTHROPIC_API_KEY", "BOOTSTRAP_PASSWORD"}
    page = Path(ROOT / "docs" / "deploy" / "modal.md").read_text()
    assert all(f"{name}=" in page for name in named)
    yield Container("modal", found["SETTINGS"], named, None, found["port"], found["exit_grace_period"])


def all_containers() -> list[Container]:
    return [*_cloud_run(), *_azure(), *_ecs(), *_modal()]
