"""nginx of deploy/kubernetes: its ConfigMap, its command, and a real nginx with both."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import wait_until
from tests.deploy.rendered import Manifest, containers, needs_kustomize, of_kind, pods, rendered
from tests.nginx.edge import ROOT, Edge, Replica, scratch_paths
from tests.nginx.names import NameServer

pytestmark = [needs_kustomize, pytest.mark.nginx]


@pytest.fixture(scope="module")
def base() -> list[Manifest]:
    return rendered("base")


def mounted(base: list[Manifest]) -> dict[str, str]:
    """Return the files of /etc/nginx with their text."""
    (volume,) = [
        each for each in pods(base)["slipway-nginx"]["spec"]["volumes"] if each["name"] == "configuration"
    ]
    texts = of_kind(base, "ConfigMap")[volume["configMap"]["name"]]["data"]
    items = {each["path"]: each["key"] for each in volume["configMap"]["items"]}
    assert set(items.values()) == set(texts)
    return {path: texts[key] for path, key in items.items()}


def test_all_files_are_there_as_they_are(base: list[Manifest]) -> None:
    found = mounted(base)
    site = found.pop("site.conf")
    assert site == (ROOT / "nginx" / "sites" / "kubernetes.conf").read_text()
    files = [ROOT / "nginx" / "nginx.conf", *(ROOT / "nginx" / "slipway").glob("*.conf")]
    assert found == {path.relative_to(ROOT / "nginx").as_posix(): path.read_text() for path in files}


def started(base: list[Manifest], pod: Path) -> list[str]:
    """Run the container's command in a folder, and return how it starts nginx at its end."""
    (pod / "run").mkdir(parents=True)
    for path, text in mounted(base).items():
        (pod / "etc" / "nginx" / path).parent.mkdir(parents=True, exist_ok=True)
        (pod / "etc" / "nginx" / path).write_text(text)
    (pod / "etc" / "resolv.conf").write_text(
        "search acme.svc.cluster.local svc.cluster.local cluster.local\nnameserver 127.0.0.53\noptions ndots:5\n"
    )
    shell, option, script = dict(containers(base))["slipway-nginx"]["command"]
    script = script.replace("/etc/", f"{pod}/etc/").replace("/run/", f"{pod}/run/")
    script, *ends = script.partition("exec nginx")
    subprocess.run([shell, option, script], check=True, timeout=10)
    return shlex.split("".join(ends))


def test_its_command_starts_two_processes_wherever_it_is(base: list[Manifest], tmp_path: Path) -> None:
    command = started(base, tmp_path)
    assert command[:4] == ["exec", "nginx", "-c", f"{tmp_path}/run/nginx/nginx.conf"]
    assert "\nworker_processes 2;\n" in (tmp_path / "run" / "nginx" / "nginx.conf").read_text()


@pytest.fixture
def asked(base: list[Manifest], tmp_path: Path) -> Iterator[tuple[Edge, Replica]]:
    """An nginx with the files of the ConfigMap, a replica, and the name server of the pod."""
    folder, run = tmp_path / "n", tmp_path / "run"
    with NameServer(["127.0.0.1"]) as names, Replica() as replica:
        edge = Edge(folder, [replica.port])
        started(base, tmp_path)
        line = (run / "replicas.conf").read_text()
        assert line == "set $slipway_replicas slipway-web.acme.svc.cluster.local:8000;\n"
        (run / "replicas.conf").write_text(line.replace(":8000", f":{replica.port}"))
        line = (run / "resolver.conf").read_text()
        assert line == "resolver 127.0.0.53 valid=1s ipv6=off;\n"
        (run / "resolver.conf").write_text(line.replace("127.0.0.53", f"127.0.0.1:{names.port}"))
        shutil.rmtree(folder / "slipway")
        shutil.copytree(run / "nginx", folder, dirs_exist_ok=True)
        site = (folder / "site.conf").read_text()
        moved = {"listen 8080": f"listen 127.0.0.1:{edge.port}", "/dev/stdout": f"{folder}/access.log"}
        for ours, theirs in (moved | {"include /run/": f"include {run}/"}).items():
            assert ours in site
            site = site.replace(ours, theirs)
        (folder / "site.conf").write_text(scratch_paths(folder) + site)
        with edge:
            yield edge, replica


def test_it_finds_the_replicas_by_the_name_of_its_own_namespace(asked: tuple[Edge, Replica]) -> None:
    edge, replica = asked
    answer = edge.http.post("/v1/agents/support/invoke", json={"input": "?"})
    assert (answer.status_code, answer.headers["Strict-Transport-Security"]) == (200, "max-age=31536000")
    assert [path for _, path, _ in replica.seen] == ["/v1/agents/support/invoke"]
    assert edge.http.get("/metrics").status_code == 404 and len(replica.seen) == 1


def test_the_client_is_the_last_address_that_the_gateway_names(asked: tuple[Edge, Replica]) -> None:
    """Addresses that a client writes there itself stand before it."""
    edge, replica = asked
    edge.http.get("/ready", headers={"X-Forwarded-For": "198.51.100.1, 203.0.113.7"})
    assert replica.seen[-1][2]["x-forwarded-for"] == "203.0.113.7"
    wait_until(edge.log, "the line of the request")
    assert edge.log()[-1]["client"] == "203.0.113.7"


def test_without_a_replica_it_says_so_in_the_words_of_the_service(asked: tuple[Edge, Replica]) -> None:
    edge, replica = asked
    replica.server.server_close()
    answer = edge.http.get("/ready")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer.headers["Retry-After"] == "1" and answer.headers["Strict-Transport-Security"]
