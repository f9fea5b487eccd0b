"""Files of deploy/observability: read by the programs themselves; metrics, alerts and pages that they name exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.boards.__main__ import BOARDS, files
from service.observe.metric_table import ALL
from tests.conftest import ROOT
from tests.deploy.observability.prometheus import CONFIG, FOLDER, RULES, needs_prometheus

ALERTS: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
]
TESTS = Path(__file__).parent / "alerts.test.yml"
RUNBOOKS = ROOT / "docs" / "runbooks"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
OURS = {name: each for name, each in COMPOSE["services"].items() if each.get("profiles") == ["observability"]}
needs_amtool = pytest.mark.skipif(
    shutil.which("amtool") is None, reason="amtool is not installed (apt install prometheus-alertmanager)"
)


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_prometheus
def test_promtool_finds_no_fault(tmp_path: Path) -> None:
    run("promtool", "check", "rules", str(RULES))
    config = CONFIG.read_text().replace("/etc/prometheus/alerts.yml", str(RULES))
    (tmp_path / "prometheus.yml").write_text(config)
    run("promtool", "check", "config", str(tmp_path / "prometheus.yml"))


@needs_prometheus
def test_each_alert_fires_and_clears() -> None:
    run("promtool", "test", "rules", str(TESTS))
    tested = [test["name"] for test in yaml.safe_load(TESTS.read_text())["tests"]]
    assert [alert["alert"] for alert in ALERTS] == [name for name in tested if " " not in name]


@needs_amtool
def test_amtool_finds_no_fault_and_severity_decides_who_is_told() -> None:
    file = str(FOLDER / "alertmanager" / "alertmanager.yml")
    run("amtool", "check-config", file)
    told = {"page": "pager", "warning": "chat"}
    for severity, receiver in told.items():
        found = run("amtool", "config", "routes", "test", f"--config.file={file}", f"severity={severity}")
        assert found.strip() == receiver
    assert {alert["labels"]["severity"] for alert in ALERTS} == set(told)


def test_each_alert_has_a_page() -> None:
    pages = set()
    for alert in ALERTS:
        name = re.sub(r"(?<!^)(?=[A-Z])", "-", alert["alert"]).lower()
        url = alert["annotations"]["runbook_url"]
        assert url == f"https://git.example.com/slipway/docs/runbooks/{name}.md"
        page = (RUNBOOKS / f"{name}.md").read_text()
        assert page.startswith(f"# {alert['alert']}\n")
        assert re.findall(r"^## (.*)$", page, re.M) == ["Meaning", "Look", "Mend", "Ignore"], name
        assert "```sh\n" in page.split("## Look")[1].split("## Mend")[0], f"{name}: commands"
        pages.add(f"{name}.md")
    assert {path.name for path in RUNBOOKS.glob("*.md")} == pages


def expressions() -> Iterator[tuple[str, str]]:
    """Yield where a query stands, and the query: of alerts, boards and pages."""
    for alert in ALERTS:
        yield alert["alert"], alert["expr"]
    for board in BOARDS:
        for row in board.rows.values():
            for panel in row:
                yield from ((f"{board.name}: {panel.title}", query) for query in panel.queries.values())
    for page in (*RUNBOOKS.glob("*.md"), ROOT / "docs" / "observability.md"):
        yield page.name, page.read_text()


def test_queries_name_metrics_and_labels_that_exist() -> None:
    known = {metric.exposed: set(metric.labels) for metric in ALL.values()}
    for where, text in expressions():
        for name, chosen in re.findall(r"\b(slipway_[a-z_]+)(\{[^}]*\})?", text):
            metric = name if name in known else re.sub(r"_(bucket|sum|count)$", "", name)
            assert metric in known, f"{where}: {name}"
            labels = set(re.findall(r"(\w+)(?:=~|!~|!=|=)\"", chosen))
            assert labels <= known[metric] | {"le", "instance", "job"}, f"{where}: {chosen}"


def test_boards_are_up_to_date() -> None:
    kept = {path.name: path.read_text() for path in (FOLDER / "grafana" / "boards").iterdir()}
    assert kept == files(), "make docs"
    for text in kept.values():
        board = json.loads(text)
        ids = [panel["id"] for panel in board["panels"]]
        places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
        assert len(set(ids)) == len(ids) and len(set(places)) == len(places)
        assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in board["panels"])


def test_compose_serves_what_the_files_ask() -> None:
    """Hosts and ports of the files are services of the profile, or replicas and workers; secrets are declared."""
    texts = [path.read_text() for path in FOLDER.rglob("*.yml")]
    hosts = {host for text in texts for host in re.findall(r"\b([a-z-]+):[0-9]{4,5}\b", text)}
    assert hosts <= OURS.keys()
    names = {
        each["names"][0]
        for job in yaml.safe_load(CONFIG.read_text())["scrape_configs"]
        for each in job["dns_sd_configs"]
    }
    assert names == {"slipway", "worker"}
    asked = {path for text in texts for path in re.findall(r"/run/secrets/(\w+)", text)}
    assert asked == set(OURS["alertmanager"]["secrets"])
    for name, service in OURS.items():
        assert re.fullmatch(r"[\w./-]+:v?[0-9]+\.[0-9]+\.[0-9]+", service["image"]), name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (ROOT / source).exists(), volume
    assert "edge" in OURS["prometheus"]["networks"] and "edge" in OURS["otel-collector"]["networks"]


def test_published_file_publishes_grafana_to_this_machine_alone() -> None:
    services = yaml.safe_load((FOLDER / "published.yml").read_text())["services"]
    assert services == {"grafana": {"ports": ["127.0.0.1:${GRAFANA_PORT:-3000}:3000"]}}
