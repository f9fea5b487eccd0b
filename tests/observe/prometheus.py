"""A real Prometheus that scrapes the tests' own servers."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from tests.conftest import free_port, process, wait_until

PROMETHEUS = shutil.which("prometheus")


class Prometheus:
    def __init__(self, port: int) -> None:
        self.http = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False)

    def query(self, text: str) -> list[dict[str, Any]]:
        """Return the vector that an instant query gives now."""
        answer = self.http.get("/api/v1/query", params={"query": text})
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    def value(self, text: str) -> float | None:
        """Return the value of a query that gives one, or none."""
        found = self.query(text)
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else None

    def is_ready(self) -> bool:
        return self.http.get("/-/ready").status_code == 200


@contextmanager
def scraping(folder: Path, ports: Sequence[int], interval: str = "1s") -> Iterator[Prometheus]:
    """Scrape servers at these ports, each every `interval`."""
    folder.mkdir(parents=True, exist_ok=True)
    targets = [f"127.0.0.1:{port}" for port in ports]
    jobs = [{"job_name": "slipway", "static_configs": [{"targets": targets}]}]
    config = {"global": {"scrape_interval": interval, "scrape_timeout": interval}, "scrape_configs": jobs}
    (folder / "prometheus.yml").write_text(json.dumps(config))
    port = free_port()
    command = [
        str(PROMETHEUS),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with process(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        made = Prometheus(port)
        wait_until(made.is_ready, "Prometheus")
        yield made
        made.http.close()
