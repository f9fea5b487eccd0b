"""Invalid settings end every program with the same message."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from config import ConfigError, load
from tests.conftest import PYTHON, ROOT
from tests.launcher.clone import PROGRAMS, clone, command, environ

WRONG = {
    "APP_ENV": "production",
    "SECRET_KEY": "your-secret-here",
    "PORT": "many",
    "LOG_LEVEL": "warn",
    "LIMIT_RUN": "60/minute",
    "DATABASE_URL": "postgresql://slipway:p#w@db/slipway",
    "METRICS_ENABLED": "perhaps",
}
LINES = """
APP_ENV=staging
LIMIT_RUNS=often
BUDGET_USER_DAY 5
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone(tmp_path_factory.mktemp("clone"), LINES)


def ended(program: str, folder: Path, **changes: str) -> str:
    """Run a program with invalid settings; return its output."""
    done = subprocess.run(
        command(program), cwd=folder, env=environ(**changes), capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    return done.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_reports_all_invalid_settings_at_once(program: str) -> None:
    with pytest.raises(ConfigError) as expected:
        load(WRONG)
    assert set(expected.value.faults) > set(WRONG) - {"APP_ENV"}
    assert ended(program, ROOT, FLASK_SKIP_DOTENV="1", **WRONG) == f"{expected.value}\n"


@pytest.mark.parametrize("program", ["launcher", "gunicorn", "worker", "flask", "alembic"])
def test_every_program_reports_an_invalid_env_file_line(program: str, folder: Path) -> None:
    said = ended(program, folder)
    assert (
        "Slipway cannot start: 6 settings are wrong (APP_ENV=staging)." in said
    )  # Flask reads the file first, and grumbles
    assert "\n  .env:4: is not NAME=value\n" in said
    assert "\n  LIMIT_RUNS: is not a rate limit such as 60/minute, or none\n" in said
    assert "\n  SECRET_KEY: is the default of development;" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--port", "many"), "--port: must be a whole number from 0 to 65535"),
        (("--port", "65536"), "--port: must be a whole number from 0 to 65535"),
        (("--token-ms", "nan"), "--token-ms: must be a number of milliseconds"),
        (("--fault", "explode"), "there is no fault 'explode', only 400, "),
        (("--host", "192.0.2.1", "--port", "0"), "192.0.2.1:0 cannot be listened on: "),
    ],
)
def test_offline_model_reports_invalid_settings(options: tuple[str, ...], said: str) -> None:
    done = subprocess.run(
        [PYTHON, "-m", "offline_model", *options], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0 and said in done.stderr
    assert "Traceback" not in done.stderr


def test_config_program_has_one_option() -> None:
    done = subprocess.run(
        [PYTHON, "-m", "config", "--evn"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "") and "--env" in done.stderr
