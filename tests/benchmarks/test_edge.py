"""The benchmark's nginx is the project's own, moved to loopback."""

from __future__ import annotations

import subprocess
from pathlib import Path

import httpx2
import pytest

from benchmarks.edge import lay_out, nginx
from benchmarks.processes import program
from tests.conftest import free_port


@pytest.mark.nginx
def test_nginx_takes_its_configuration(tmp_path: Path) -> None:
    binary = program("nginx")
    assert binary is not None
    lay_out(tmp_path / "site", 8080, [8000, 8001])
    options = ["-g", f"pid {tmp_path}/nginx.pid;", "-e", "stderr"]
    command = [binary, "-t", "-p", f"{tmp_path}/site/", "-c", f"{tmp_path}/site/nginx.conf", *options]
    told = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert told.returncode == 0, told.stderr


@pytest.mark.nginx
def test_nginx_is_up_whatever_its_replicas_answer_to_a_stranger(tmp_path: Path) -> None:
    with nginx(tmp_path / "site", [free_port()]) as (port, child):
        answer = httpx2.get(f"http://127.0.0.1:{port}/health", timeout=20, trust_env=False)
        assert answer.status_code == 503  # its own: no replica is there
        assert child.poll() is None
