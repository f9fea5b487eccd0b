"""The version and the licence are the same wherever they are told."""

from __future__ import annotations

import re
from pathlib import Path

import httpx2

from service import __version__

ROOT = Path(__file__).parent.parent
LABELS = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="(.*?)"', (ROOT / "Dockerfile").read_text()))


def test_the_version_is_semantic() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?", __version__)


def test_image_labels_match_version_and_licence() -> None:
    assert LABELS["version"] == __version__
    title, version = (line.strip() for line in (ROOT / "LICENSE").read_text().strip().splitlines()[:2])
    assert (title, version.partition(",")[0]) == ("Apache License", "Version 2.0")
    assert LABELS["licenses"] == "Apache-2.0"


def test_running_server_reports_its_version(client: httpx2.Client) -> None:
    assert client.get("/health").json() == {"status": "ok", "version": __version__}
    assert client.get("/openapi.json").json()["info"]["version"] == __version__
