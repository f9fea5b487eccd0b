"""Manifests of deploy/kubernetes as kustomize renders them, and lookups in them."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
OVERLAYS = sorted(path.name for path in (FOLDER / "overlays").iterdir())
REAL = ("production", "staging")
CODE = ("slipway-web", "slipway-worker", "slipway-migrate")  # what runs the service's own code

Manifest = dict[str, Any]
needs_kustomize = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl, which has kustomize in it, is not installed"
)


@functools.cache
def _render(folder: Path) -> str:
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr  # of deprecated fields
    return done.stdout


def rendered(folder: str) -> list[Manifest]:
    """Render a folder of deploy/kubernetes."""
    return list(yaml.safe_load_all(_render(FOLDER / folder)))


def overlay(name: str) -> list[Manifest]:
    return rendered(f"overlays/{name}")


def of_kind(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    """Find the manifests of a kind by their names."""
    return {each["metadata"]["name"]: each for each in manifests if each["kind"] == kind}


def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Find the pod templates by the names of their Deployments and Jobs."""
    return {
        each["metadata"]["name"]: each["spec"]["template"]
        for each in manifests
        if each["kind"] in ("Deployment", "Job")
    }


def containers(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    for name, pod in pods(manifests).items():
        for container in pod["spec"]["containers"]:
            yield name, container


def selected(manifests: list[Manifest], labels: dict[str, str]) -> list[str]:
    """Return the names of the pods that have all of these labels."""
    return [
        name for name, pod in pods(manifests).items() if labels.items() <= pod["metadata"]["labels"].items()
    ]


def ports(manifests: list[Manifest], pod: str) -> dict[str, int]:
    """Return a pod's ports by name."""
    found = pods(manifests)[pod]["spec"]["containers"]
    return {port["name"]: port["containerPort"] for each in found for port in each.get("ports", ())}
