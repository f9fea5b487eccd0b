"""Manifests of deploy/kubernetes against the code: settings, secrets, commands, routes, times, metrics, connections."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from config import Settings, load
from config.secrets import CONTAINER_SECRETS
from tests.conftest import ROOT
from tests.deploy.rendered import (
    CODE,
    FOLDER,
    OVERLAYS,
    REAL,
    Manifest,
    containers,
    needs_kustomize,
    of_kind,
    overlay,
    pods,
    rendered,
)
from tests.made import app_in, close

pytestmark = needs_kustomize
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
PAGE = (ROOT / "docs" / "deploy" / "kubernetes.md").read_text()
GUNICORN_ADDS = 5  # seconds, see docs/running.md
MADE_UP = {
    "database_url": "postgresql://slipway:6f1c9b7e0d2a@db.internal/slipway",
    "redis_url": "redis://:9d0b2c7e6f1a@redis.internal:6379/0",
    "secret_key": "rT7vQx2mLp9sZk4wYb8nHc3jFd6gKa1eUo5iVq0",
    "anthropic_api_key": "sk-ant-not-a-real-one",
    "bootstrap_password": "Vq7mLp2sZk9wYb",
}


def environment(manifests: list[Manifest], container: Manifest) -> dict[str, str]:
    """Put a container's environment together as the kubelet does."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        found |= of_kind(manifests, "ConfigMap")[source["configMapRef"]["name"]]["data"]
    return found | {each["name"]: each["value"] for each in container.get("env", ())}


def keys(manifests: list[Manifest]) -> set[str]:
    """Return the keys of the Secret of the service, written there or by an ExternalSecret."""
    for each in of_kind(manifests, "ExternalSecret").values():
        return {entry["secretKey"] for entry in each["spec"]["data"]}
    (secret,) = of_kind(manifests, "Secret").values()
    return set(secret["data"])


def settings(manifests: list[Manifest], container: Manifest, folder: Path) -> Settings:
    """Load a container's settings, its secrets in a folder. A misspelt name or a secret that is missing raises."""
    (mount,) = [each["mountPath"] for each in container["volumeMounts"] if each["name"] == "secrets"]
    for key in keys(manifests):
        path = folder / key
        path.write_text(MADE_UP[key])
        path.chmod(0o440)
    environ = environment(manifests, container)
    return load({name: value.replace(f"{mount}/", f"{folder}/") for name, value in environ.items()})


@pytest.mark.parametrize("name", OVERLAYS)
def test_settings_and_secrets_are_the_codes_own(name: str, tmp_path: Path) -> None:
    manifests = overlay(name)
    for pod, container in containers(manifests):
        if pod not in CODE:
            continue
        environ = environment(manifests, container)
        own = settings(manifests, container, tmp_path)
        assert own.environment == environ["APP_ENV"] == name
        known = {form for each in Settings.model_fields for form in (each.upper(), f"{each.upper()}_FILE")}
        assert set(environ) <= {*known, "APP_ENV"}
        files = {Path(value).name for each, value in environ.items() if each.endswith("_FILE") and value}
        assert files == keys(manifests), "a secret that nothing reads, or a file that is not there"
        assert str(own.host) == "0.0.0.0" and own.trusted_proxies == 1
        mounts = {each["mountPath"] for each in container["volumeMounts"]}
        assert {str(own.slipway_home), "/tmp"} < mounts, "the rest of the file system is read-only"


@pytest.mark.parametrize("name", OVERLAYS)
def test_other_users_cannot_read_the_secrets(name: str) -> None:
    for pod, template in pods(overlay(name)).items():
        if pod in CODE:
            (volume,) = [each for each in template["spec"]["volumes"] if each["name"] == "secrets"]
            assert volume["secret"]["defaultMode"] & 0o007 == 0
            (container,) = template["spec"]["containers"]
            (mount,) = [each for each in container["volumeMounts"] if each["name"] == "secrets"]
            assert mount["readOnly"] and mount["mountPath"].startswith(CONTAINER_SECRETS)


def test_no_secret_stands_in_an_overlay_that_people_reach() -> None:
    for name in REAL:
        assert not of_kind(overlay(name), "Secret")
    assert not re.search(r"sk-ant|postgresql://", "".join(path.read_text() for path in FOLDER.glob("base/*")))


@pytest.mark.parametrize("name", OVERLAYS)
def test_commands_and_ports_are_those_of_compose(name: str, tmp_path: Path) -> None:
    manifests = overlay(name)
    found = dict(containers(manifests))
    assert "command" not in found["slipway-web"], "the image's own"
    assert found["slipway-worker"]["command"] == COMPOSE["worker"]["command"]
    assert found["slipway-migrate"]["command"] == COMPOSE["migrate"]["command"]
    web = settings(manifests, found["slipway-web"], tmp_path)
    worker = settings(manifests, found["slipway-worker"], tmp_path)
    assert [port["containerPort"] for port in found["slipway-web"]["ports"]] == [web.port]
    assert [port["containerPort"] for port in found["slipway-worker"]["ports"]] == [worker.task_metrics_port]
    assert worker.metrics_enabled
    images = {pod: container["image"] for pod, container in containers(manifests)}
    assert images["slipway-web"] == images["slipway-worker"] == images["slipway-migrate"] != "slipway"
    assert images["slipway-nginx"] == COMPOSE["nginx"]["image"]
    for part in ("postgres", "redis"):
        if part in found:
            assert found[part]["image"] == COMPOSE[part]["image"]


def test_probes_ask_what_they_mean(tmp_path: Path) -> None:
    app = app_in(tmp_path)
    routes = {str(rule) for rule in app.url_map.iter_rules()}
    close(app)
    web = dict(containers(rendered("base")))["slipway-web"]
    paths = {kind: web[kind]["httpGet"]["path"] for kind in web if kind.endswith("Probe")}
    # Liveness asks no dependency: a database that is away must not restart every process.
    assert paths == {"startupProbe": "/health", "livenessProbe": "/health", "readinessProbe": "/ready"}
    assert set(paths.values()) <= routes
    ready = web["readinessProbe"]
    assert ready["timeoutSeconds"] > 2, "/ready answers within 2 s"
    assert ready["periodSeconds"] * ready["failureThreshold"] >= 30, "runs wait 30 s for the database"
    for monitor in of_kind(rendered("monitoring"), "ServiceMonitor").values():
        assert {each["path"] for each in monitor["spec"]["endpoints"]} <= routes


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_pod_that_stops_has_the_time_for_it(name: str, tmp_path: Path) -> None:
    manifests = overlay(name)
    for pod, container in containers(manifests):
        spec = pods(manifests)[pod]["spec"]
        grace = spec.get("terminationGracePeriodSeconds", 30)
        sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        if pod in ("slipway-web", "slipway-worker"):
            drain = settings(manifests, container, tmp_path).graceful_timeout + GUNICORN_ADDS
        elif pod == "slipway-nginx":
            text = "".join(path.read_text() for path in (ROOT / "nginx" / "slipway").glob("*.conf"))
            drain = max(int(seconds) for seconds in re.findall(r"proxy_read_timeout ([0-9]+)s", text))
        else:
            continue
        assert grace > sleep + drain, pod
    for pod in ("slipway-web", "slipway-nginx"):  # an address is used for a while after it is gone
        assert dict(containers(manifests))[pod]["lifecycle"]["preStop"]["sleep"]["seconds"] >= 10


def test_jobs_have_the_names_that_alerts_ask_for() -> None:
    services = of_kind(rendered("base"), "Service")
    jobs = set()
    for name, monitor in of_kind(rendered("monitoring"), "ServiceMonitor").items():
        label = monitor["spec"].get("jobLabel")
        jobs.add(services[name]["metadata"]["labels"][label] if label else name)
    assert jobs == {"slipway", "slipway-worker"}


def metrics() -> dict[str, set[str]]:
    """Return every metric with its labels, of the tables in docs/, which other tests compare with the code."""
    found = {}
    for page in (ROOT / "docs").glob("*.md"):
        for line in re.findall(r"^\| (`slipway_.*) \|$", page.read_text(), re.M):
            name, *cells, _ = line.split(" | ")
            found[name.strip("`")] = set(re.findall(r"`(\w+)`", " ".join(cells)))
    return found


def test_autoscalers_ask_for_metrics_that_there_are() -> None:
    known = metrics()
    adapter = (FOLDER / "autoscaling" / "prometheus-adapter.yaml").read_text()
    rules = yaml.safe_load(adapter)["rules"]
    made = {kind: {rule["name"]["as"] for rule in rules[kind]} for kind in ("custom", "external")}
    asked: dict[str, set[str]] = {"custom": set(), "external": set()}
    for scaler in of_kind(rendered("autoscaling"), "HorizontalPodAutoscaler").values():
        for metric in scaler["spec"]["metrics"]:
            if metric["type"] == "Pods":
                asked["custom"].add(metric["pods"]["metric"]["name"])
            elif metric["type"] == "External":
                asked["external"].add(metric["external"]["metric"]["name"])
    assert made == asked
    for rule in (*rules["custom"], *rules["external"]):
        series, labels = re.fullmatch(r"(\w+)\{(.*)\}", rule["seriesQuery"]).groups()  # type: ignore[union-attr]
        assert set(re.findall(r"(\w+)!?=", labels)) <= known[series] | {"namespace", "pod"}


def test_all_pods_together_stay_within_the_connections_of_the_page(tmp_path: Path) -> None:
    manifests = overlay("production")
    most = {
        each["spec"]["scaleTargetRef"]["name"]: each["spec"]["maxReplicas"]
        for each in of_kind(manifests, "HorizontalPodAutoscaler").values()
    }
    found = dict(containers(manifests))
    total = 0
    for pod, processes in (("slipway-web", "web_concurrency"), ("slipway-worker", "task_concurrency")):
        own = settings(manifests, found[pod], tmp_path)
        surge = of_kind(manifests, "Deployment")[pod]["spec"]["strategy"]["rollingUpdate"]["maxSurge"]
        total += (most[pod] + surge) * getattr(own, processes) * own.database_pool_size
    assert f"{total} connections" in PAGE
    text = (FOLDER / "overlays" / "production" / "settings.env").read_text()
    assert f"{total} connections" in text


@pytest.mark.parametrize(
    "urls",
    [
        {"REDIS_URL": "redis+sentinel://:9d0b2c7e6f1a@s1:26379,s2:26379,s3:26379/main/0"},
        {
            "REDIS_URL": "rediss+cluster://:9d0b2c7e6f1a@h1:6379,h2:6379",
            "BROKER_URL": "amqps://u:9d0b2c7e6f1a@q:5671/v",
        },
        {
            "DATABASE_URL": "postgresql://slipway:6f1c9b7e0d2a@db.eu.rds.amazonaws.com/slipway?sslmode=verify-full"
        },
        {"DATABASE_URL": "postgresql://slipway:6f1c9b7e0d2a@pg1:5432,pg2:5432/slipway"},
    ],
)
def test_urls_of_the_page_are_taken(urls: dict[str, str]) -> None:
    """Sentinel, Cluster with another broker, a managed PostgreSQL, one of several hosts."""
    given = {name.upper(): value for name, value in MADE_UP.items()}
    own = load({"APP_ENV": "production", "BOOTSTRAP_USERNAME": "root", **given, **urls})
    assert own.redis_url and own.database_url.startswith("postgresql+psycopg://")
