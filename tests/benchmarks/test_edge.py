"""The benchmark's nginx is the project's own, moved to loopback."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from benchmarks.edge import lay_out
from benchmarks.processes import program


@pytest.mark.nginx
def test_nginx_takes_its_configuration(tmp_path: Path) -> None:
    binary = program("nginx")
    assert binary is not None
    lay_out(tmp_path / "site", 8080, [8000, 8001])
    options = ["-g", f"pid {tmp_path}/nginx.pid;", "-e", "stderr"]
    command = [binary, "-t", "-p", f"{tmp_path}/site/", "-c", f"{tmp_path}/site/nginx.conf", *options]
    told = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert told.returncode == 0, told.stderr
