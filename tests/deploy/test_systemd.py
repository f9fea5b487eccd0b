"""Units of deploy/systemd: systemd takes them, their commands are the service's, and their times fit."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from config.base import Settings
from tests.conftest import ROOT

UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
BINARIES = "/opt/slipway/.venv/bin"
GUNICORN_ADDS = 5  # seconds, see docs/running.md


def unit(path: Path) -> dict[str, str]:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(path)
    return dict(parser["Service"])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for name in ("alembic", "gunicorn", "celery"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    for path in UNITS:
        text = path.read_text()
        assert BINARIES in text
        (tmp_path / path.name.replace("@", "@8001")).write_text(text.replace(BINARIES, str(tmp_path)))
    units = [str(path) for path in sorted(tmp_path.glob("*.service"))]
    assert len(units) == 2
    done = subprocess.run(
        ["systemd-analyze", "verify", *units], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_commands_and_times_are_those_of_the_service() -> None:
    web, worker = unit(UNITS[1]), unit(UNITS[0])
    (command,) = re.findall(r"^CMD (\[\"gunicorn.*\])$", (ROOT / "Dockerfile").read_text(), re.M)
    assert web["ExecStart"] == f"{BINARIES}/{' '.join(json.loads(command))}"
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert worker["ExecStart"] == f"{BINARIES}/{' '.join(compose['worker']['command'])}"
    assert web["ExecStartPre"] == f"{BINARIES}/{' '.join(compose['migrate']['command'])}"
    drain = Settings.model_fields["graceful_timeout"].default + GUNICORN_ADDS
    assert all(int(each["TimeoutStopSec"]) > drain and each["KillMode"] == "mixed" for each in (web, worker))


def test_units_may_do_nothing_that_they_need_not() -> None:
    for each in map(unit, UNITS):
        assert each["User"] == "slipway" and each["CapabilityBoundingSet"] == ""
        assert each["ProtectSystem"] == "strict" and each["NoNewPrivileges"] == "yes"
        assert each["ReadWritePaths"] == "/var/lib/slipway"
