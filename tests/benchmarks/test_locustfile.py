"""Locust's file against a real server, and how its figures are read."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import mix_page
from benchmarks.mix import locust
from tests.benchmarks.conftest import Upstream
from tests.conftest import ROOT, RedisServer, Slipway, slipway_server

PARTS = dict.fromkeys(mix_page.PARTS, 0.0)


@pytest.fixture(scope="module")
def server(scratch: Path, redis_server: RedisServer, upstream_process: Upstream) -> Iterator[Slipway]:
    """Serve the agents of the load, with the benchmark's own model."""
    home = scratch / "locust"
    for source in (ROOT / "agents" / "assistant", ROOT / "benchmarks" / "agents" / "notary"):
        shutil.copytree(source, home / "agents" / source.name)
    agents = str(home / "agents")
    with slipway_server(home, redis_server.url, upstream_process.url, AGENTS_DIR=agents) as running:
        yield running


@pytest.mark.parametrize(
    ("tag", "names"),
    [
        ("approval", {"make a person", "sign in", "approval", "approval: decide", "approval: poll"}),
        ("stream", {"make a person", "sign in", "stream", "stream: first text"}),
    ],
)
def test_people_are_made_and_do_one_kind_without_a_failure(
    server: Slipway, tmp_path: Path, tag: str, names: set[str]
) -> None:
    found = locust(server.url, tmp_path, 2, 90, "--tags", tag, "--model-ms", "0", "--things", "2")
    assert {line.name for line in found} == names
    assert [line for line in found if line.failures or not line.count] == []
    assert "<html" in (tmp_path / "locust.html").read_text()


def line(name: str, count: int, failures: int = 0) -> dict[str, Any]:
    return {"kind": "POST", "name": name, "count": count, "failures": failures, "p50": 1, "p95": 2, "p99": 3}


def phase(tag: str, lines: list[dict[str, Any]], **cpu: float) -> dict[str, Any]:
    return {
        "tag": tag,
        "people": 1,
        "seconds": 10.0,
        "lines": lines,
        "cpu": {**PARTS, **cpu},
        "memory_mib": {"replica": 300.0},
        "load1": 1.0,
        "samples": [],
    }


def test_cost_of_a_kind_is_without_idle_processes_failures_and_first_answers() -> None:
    phases = [
        phase("invoke", [line("invoke", 110, 10)], replicas=1.1),
        phase("again", [line("again", 200), line("again: first time", 10)], replicas=0.6),
        phase("", [line("invoke", 10)], replicas=1.0),
    ]
    idle = {"cpu": {**PARTS, "replicas": 0.01}, "memory_mib": {"replica": 250.0}}
    costs = mix_page.cost_of_kinds({"phases": phases, "idle": idle})
    assert costs["invoke"]["replicas"] == pytest.approx(10)
    assert costs["again"]["replicas"] == pytest.approx(2)
    machine = {"date": "", "commit": "", "processor": "", "cores": 2, "memory_gib": 1}
    page = mix_page.page({"machine": machine, "phases": phases, "idle": idle})
    assert "| invoke, a new question | 100 | 10.00 |" in page
    assert "Reckoned from the kinds alone: 0.1 s" in page


def test_cores_are_the_difference_of_neighbouring_samples() -> None:
    samples = [{"at": 5.0, **PARTS}, {"at": 7.0, **PARTS, "nginx": 1.0}]
    assert mix_page.cores(samples)["nginx"] == [(2.0, 0.5)]
