"""Prometheus of the tests' own, with the project's files: addresses of the test's parts, and quicker clocks."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from tests.conftest import ROOT, free_port, process, wait_until

FOLDER = ROOT / "deploy" / "observability"
RULES = FOLDER / "prometheus" / "alerts.yml"
CONFIG = FOLDER / "prometheus" / "prometheus.yml"
DURATION = r"[0-9]+[smhd]"
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="Prometheus is not installed (apt install prometheus)",
)


def quicker(rules: str, thresholds: Mapping[str, tuple[str, str]]) -> str:
    """Return the rules with ranges, offsets and waits of seconds; `thresholds`: by alert, what is lower in its rule."""
    rules = re.sub(rf"\[{DURATION}\]", "[10s]", rules)
    rules = re.sub(rf"offset {DURATION}", "offset 10s", rules)
    loaded = yaml.safe_load(re.sub(rf"for: {DURATION}", "for: 0s", rules))
    for group in loaded["groups"]:
        group.pop("interval", None)
        for rule in group["rules"]:
            old, new = thresholds.get(rule["alert"], ("", ""))
            assert old in rule["expr"], f"{rule['alert']} has no {old}"
            rule["expr"] = rule["expr"].replace(old, new) if old else rule["expr"]
    return yaml.safe_dump(loaded)


@dataclass
class Prometheus:
    """A running server."""

    url: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series of an instant query."""
        answer = httpx2.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=30).json()
        assert answer["status"] == "success", (expression, answer)
        series: list[dict[str, Any]] = answer["data"]["result"]
        return series

    def firing(self) -> set[str]:
        """Return the names of alerts that fire."""
        answer = httpx2.get(f"{self.url}/api/v1/alerts", timeout=30).json()
        return {alert["labels"]["alertname"] for alert in answer["data"]["alerts"]}


@contextmanager
def prometheus(
    folder: Path, targets: Mapping[str, int], thresholds: Mapping[str, tuple[str, str]] | None = None
) -> Iterator[Prometheus]:
    """Start Prometheus over the ports `targets` of each job."""
    folder.mkdir(parents=True, exist_ok=True)
    config = yaml.safe_load(CONFIG.read_text())
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(folder / "alerts.yml")]
    del config["alerting"]
    for job in config["scrape_configs"]:
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": [f"127.0.0.1:{targets[job['job_name']]}"]}]
    (folder / "alerts.yml").write_text(quicker(RULES.read_text(), thresholds or {}))
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--query.lookback-delta=10s",
        "--log.level=error",
    ]
    with process(command, stdout=subprocess.DEVNULL):
        server = Prometheus(f"http://127.0.0.1:{port}")
        wait_until(
            lambda: httpx2.get(f"{server.url}/-/ready").status_code == 200 and server.query("up == 1"),
            "Prometheus",
        )
        yield server
