"""The folder that docs/deploy.md makes on a bare machine: all that is needed is in it, and its `.env` is read."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import PYTHON, ROOT

PAGE = (ROOT / "docs" / "deploy.md").read_text()
FOLDER, SETTINGS, STATE = "/opt/slipway", "/etc/slipway", "/var/lib/slipway"


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by the lines of the page, in another place."""
    root = tmp_path_factory.mktemp("machine")
    for path in (FOLDER, SETTINGS, STATE):
        (root / path[1:]).mkdir(parents=True)
    copy = re.search(r"^cp -r agents .*$", PAGE, re.M)
    write = re.search(r"^cat > /etc/slipway/slipway\.env.*?^ln -s .*?$", PAGE, re.M | re.S)
    assert copy is not None and write is not None
    lines = f"PASSWORD=$(openssl rand -hex 24)\n{copy[0]}\n{write[0]}"
    for path in (FOLDER, SETTINGS, STATE):
        lines = lines.replace(path, f"{root}{path}")
    subprocess.run(["bash", "-euc", lines], cwd=ROOT, check=True, timeout=60)
    return root


def typed(deployed: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    command = [PYTHON, "-m", *words]
    folder = deployed / FOLDER[1:]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=60)


def test_the_placeholder_of_the_page_is_refused_and_a_key_is_not(deployed: Path) -> None:
    done = typed(deployed, "flask", "--help")
    assert done.returncode == 1 and re.findall(r"^  (\w+):", done.stderr, re.M) == ["ANTHROPIC_API_KEY"], (
        done.stderr
    )
    settings = deployed / SETTINGS[1:] / "slipway.env"
    settings.write_text(settings.read_text().replace("sk-ant-…", "sk-ant-not-a-real-one"))
    done = typed(deployed, "flask", "--help")
    assert done.returncode == 0 and "users" in done.stdout, done.stderr
    assert typed(deployed, "celery", "-A", "worker", "report").returncode == 0
    checked = typed(deployed, "gunicorn", "--check-config", "-c", "gunicorn.conf.py", "wsgi:app")
    assert checked.returncode == 0, checked.stderr
