"""Copy of the project with its own `.env` and editable code."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.conftest import PYTHON, ROOT

PARTS = ("agents", "config", "launcher", "mcp_servers", "migrations", "offline_model", "service")
FILES = ("alembic.ini", "gunicorn.conf.py", "mcp.yaml", "worker.py", "wsgi.py")
PROGRAMS = {
    "launcher": ("launcher",),
    "gunicorn": ("gunicorn", "-c", "gunicorn.conf.py", "wsgi:app"),
    "worker": ("celery", "--quiet", "-A", "worker", "worker"),
    "flask": ("flask", "users", "list"),
    "flask help": ("flask", "--help"),
    "flask run": ("flask", "run", "--port", "0"),
    "alembic": ("alembic", "upgrade", "head"),
}


def clone(folder: Path, env_file: str = "") -> Path:
    for part in PARTS:
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in FILES:
        shutil.copy(ROOT / file, folder)
    (folder / ".env").write_text(env_file)
    return folder


def command(program: str) -> list[str]:
    return [PYTHON, "-m", *PROGRAMS[program]]


def environ(**changes: str) -> dict[str, str]:
    """Return the tests' environment, with `.env` enabled."""
    return {**os.environ, "FLASK_SKIP_DOTENV": "0", **changes}
