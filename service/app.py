"""The application factory, to be read top to bottom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Flask

from service import wiring
from service.observe import logs
from service.web import agents, auth, drain, health, limits, openapi, problems, runs, timing, ui
from service.web.schemas import MAX_BODY

if TYPE_CHECKING:
    from config.base import Settings

BLUEPRINTS = (auth, agents, runs, health, openapi, ui)


def create_app(settings: Settings, services: wiring.Services | None = None) -> Flask:
    """An application for these settings. `services` replaces what `wiring.build` would make, in tests."""
    logs.configure(settings.log_format, settings.log_level)
    app = Flask(__name__, static_folder=None, template_folder="web/templates")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.extensions["slipway"] = services or wiring.build(settings, draining=drain.draining)
    timing.install(app)
    problems.install(app)
    auth.install(app)
    limits.install(app)
    for module in BLUEPRINTS:
        app.register_blueprint(module.blueprint)
    return app

