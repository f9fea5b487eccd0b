"""Servers of the benchmark: which code each of them runs."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from benchmarks.fleet import Fleet, title
from benchmarks.processes import Failed
from benchmarks.servers import Setup
from tests.conftest import free_port

# A service that answers whatever it is asked, with the folder that it runs in.
APPLICATION = """
import json, os, pathlib
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    told = {"access_token": "t", "folder": os.getcwd(), "migrated": pathlib.Path("migrated").exists()}
    return [json.dumps(told).encode()]
"""
ALONE = Setup(workers=1, people=1, redis=free_port())


def test_another_checkout_runs_its_own_code_and_migrations(tmp_path: Path) -> None:
    other = tmp_path / "before"
    (other / "alembic").mkdir(parents=True)
    (other / "alembic" / "__init__.py").touch()
    (other / "alembic" / "__main__.py").write_text("open('migrated', 'w')")
    (other / "wsgi.py").write_text(APPLICATION)
    (other / "gunicorn.conf.py").write_text("import os\nbind = '127.0.0.1:' + os.environ['PORT']\n")
    name = f"slipway@{other}"
    with Fleet(tmp_path) as fleet:
        server = fleet.get(name, ALONE)
        told = httpx2.get(f"http://127.0.0.1:{server.port}/", timeout=20, trust_env=False).json()
        assert (told["folder"], told["migrated"]) == (str(other), True)
        assert server.name == name and server.is_slipway
        assert fleet.get(name, ALONE).child is server.child


def test_a_folder_without_a_checkout_is_left_out_of_the_run(tmp_path: Path) -> None:
    with Fleet(tmp_path) as fleet, pytest.raises(Failed):
        fleet.get(f"slipway@{tmp_path}", ALONE)


def test_titles() -> None:
    assert title("slipway@../before") == "Slipway @ before"
    assert title("bare") == "SDK, no service"
    assert title("runs 1000") == "runs 1000"
