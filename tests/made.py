"""Applications made in the test's own process, over a fresh SQLite and without Redis or a model."""

from __future__ import annotations

from pathlib import Path

from flask import Flask

from config import Settings, load
from service.app import create_app
from service.wiring import Services
from tests.tables import create_tables

NOWHERE = "http://127.0.0.1:9"  # the discard port: nobody listens


def settings_in(folder: Path, **environ: str) -> Settings:
    """Settings of the testing environment, with everything they name under `folder`."""
    parts = {"REDIS_URL": f"unix://{folder}/no-redis.sock", "ANTHROPIC_BASE_URL": NOWHERE}
    user = {"BOOTSTRAP_USERNAME": "demo", "BOOTSTRAP_PASSWORD": "demo-password"}
    return load({"APP_ENV": "testing", "SLIPWAY_HOME": str(folder), **parts, **user, **environ})


def app_in(folder: Path, **environ: str) -> Flask:
    app = create_app(settings_in(folder, **environ))
    services: Services = app.extensions["slipway"]
    create_tables(services.infra.db.engine)
    services.auth.users.bootstrap("demo", "demo-password")
    return app


def close(app: Flask) -> None:
    app.extensions["slipway"].close()
