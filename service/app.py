"""Application factory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Flask, request
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.utils import find_modules, import_string

from service import cli, wiring
from service.jobs.broker import make_wakeup
from service.observe import logs
from service.runs.recovery.supervisor import ProcessRole
from service.web import authentication, cors, current, gate, hooks, lifecycle, limits, openapi, problems
from service.web.body import MAX_BODY

if TYPE_CHECKING:
    from config.base import Settings


def create_app(settings: Settings, services: wiring.Services | None = None) -> Flask:
    """Build an application for these settings; `services` replaces those of `wiring.build` in tests."""
    logs.configure(settings.log_format, settings.log_level)
    app = current.Application(__name__, static_folder=None, template_folder="web/templates")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY + 1  # at the limit Werkzeug cuts a chunked body silently
    app.url_map.merge_slashes = False  # `//` in a path is an error, not a redirect
    if settings.trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=settings.trusted_proxies, x_proto=0)  # type: ignore[method-assign]
    app.wsgi_app = gate.Gate(app.wsgi_app, settings.most_requests)  # type: ignore[method-assign]
    app.extensions["slipway"] = services or wiring.build(
        settings, ProcessRole("web", make_wakeup(settings), lifecycle.draining)
    )
    hooks.install(app)
    problems.install(app)
    authentication.install(app)
    limits.install(app)
    cors.install(app, settings.cors_origins)
    if settings.reload:
        app.before_request(_reread_agents)
    app.register_blueprint(openapi.blueprint)
    for package in ("service.web.routes", "service.web.doors"):  # each of their modules has a `blueprint`
        for module in find_modules(package):
            app.register_blueprint(import_string(module).blueprint)
    cli.install(app)
    return app


def _reread_agents() -> None:
    """Reload edited agents, except on health checks: a `tools.py` may take seconds to import."""
    if request.path not in gate.ALWAYS:
        current.services().agents.refresh()
