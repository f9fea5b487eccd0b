"""Slipway on Modal: `modal deploy deploy/modal/slipway.py`, as docs/deploy/modal.md says."""

from __future__ import annotations

import subprocess
from pathlib import Path

import modal

SETTINGS = {
    "APP_ENV": "production",
    "HOST": "0.0.0.0",
    "PORT": "8000",
    "SLIPWAY_HOME": "/tmp/slipway",
    "LOG_FORMAT": "json",
    "DATABASE_POOL_SIZE": "5",
    "BOOTSTRAP_USERNAME": "admin",
    "METRICS_ENABLED": "false",  # /metrics would be public: no nginx is in between
    "GRACEFUL_TIMEOUT": "30",
}
FOLDERS = ("agents", "config", "migrations", "service")
FILES = ("alembic.ini", "gunicorn.conf.py", "mcp.yaml", "wsgi.py")

app = modal.App("slipway")
image = modal.Image.debian_slim(python_version="3.12").env(SETTINGS)
if modal.is_local():  # inside a container this file lies elsewhere, and the image is made
    ROOT = Path(__file__).resolve().parents[2]
    image = image.pip_install_from_requirements(str(ROOT / "requirements.txt"))
    for name in FOLDERS:
        image = image.add_local_dir(ROOT / name, f"/app/{name}", ignore=["**/__pycache__", "**/*.pyc"])
    for name in FILES:
        image = image.add_local_file(ROOT / name, f"/app/{name}")
# DATABASE_URL, REDIS_URL, SECRET_KEY, ANTHROPIC_API_KEY and BOOTSTRAP_PASSWORD.
secrets = [modal.Secret.from_name("slipway")]


@app.server(
    image=image,
    secrets=secrets,
    port=8000,
    cpu=1.0,
    memory=2048,
    min_containers=1,  # leases, schedules and waiting tasks need a process
    max_containers=8,
    target_concurrency=100,
    startup_timeout=120,
    exit_grace_period=60,
    unauthenticated=True,  # Slipway asks for a key or a token itself
)
class Server:
    """One replica under Gunicorn."""

    @modal.enter()
    def start(self) -> None:
        self.process = subprocess.Popen(["gunicorn", "-c", "gunicorn.conf.py", "wsgi:app"], cwd="/app")

    @modal.exit()
    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(50)  # over GRACEFUL_TIMEOUT and 5 s that Gunicorn adds


@app.function(image=image, secrets=secrets, timeout=86_400)
def migrate() -> None:
    """Migrate the database: `modal run deploy/modal/slipway.py::migrate`, before each deploy."""
    subprocess.run(["alembic", "upgrade", "head"], cwd="/app", check=True)
