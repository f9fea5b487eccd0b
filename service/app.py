"""The application factory, to be read top to bottom."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from service import cli, wiring
from service.jobs.broker import bell_of
from service.observe import logs
from service.web import (
    admin,
    agents,
    approvals,
    auth,
    budgets,
    drain,
    health,
    limits,
    openapi,
    problems,
    runs,
    sessions,
    tasks,
    timing,
    ui,
    usage,
)
from service.web.schemas import MAX_BODY, refuse_impossible

if TYPE_CHECKING:
    from config.base import Settings

BLUEPRINTS = (auth, agents, tasks, runs, sessions, approvals, admin, usage, budgets, health, openapi, ui)


class App(Flask):
    """Flask, whose views are plain functions: finding that out of each, at each request, costs as much as a guard."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        return func


def create_app(settings: Settings, services: wiring.Services | None = None) -> Flask:
    """An application for these settings. `services` replaces what `wiring.build` would make, in tests."""
    logs.configure(settings.log_format, settings.log_level)
    app = App(__name__, static_folder=None, template_folder="web/templates")
    app.config["MAX_CONTENT_LENGTH"] = (
        MAX_BODY + 1
    )  # at its limit Werkzeug cuts a chunked body and says nothing
    app.url_map.merge_slashes = False  # `//` in a path is a mistake to tell, not to redirect
    if settings.trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=settings.trusted_proxies, x_proto=0)  # type: ignore[method-assign]
    app.extensions["slipway"] = services or wiring.build(
        settings, bell=bell_of(settings), draining=drain.draining
    )
    timing.install(app)
    problems.install(app)
    app.before_request(refuse_impossible)
    auth.install(app)
    limits.install(app)
    for module in BLUEPRINTS:
        app.register_blueprint(module.blueprint)
    cli.install(app)
    return app
