"""The application factory, to be read top to bottom."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flask import Flask, Request, current_app, request
from flask.sessions import NullSession, SessionInterface
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import MapAdapter

from service import cli, wiring
from service.jobs.broker import wakeup_of
from service.observe import logs
from service.web import caching, gate, lifecycle, limits, openapi, problems, timing
from service.web.body import MAX_BODY
from service.web.routes import (
    admin,
    agents,
    approvals,
    auth,
    budgets,
    feedback,
    health,
    page,
    runs,
    sessions,
    tasks,
    usage,
)
from service.web.schemas import refuse_impossible

if TYPE_CHECKING:
    from config.base import Settings

BLUEPRINTS = (
    auth,
    agents,
    tasks,
    runs,
    feedback,
    sessions,
    approvals,
    admin,
    usage,
    budgets,
    health,
    openapi,
    page,
)


class NoSessions(SessionInterface):
    """Flask's cookie sessions, which nothing here uses: an empty one for everybody, that cannot be written to."""

    _none = NullSession()

    def open_session(self, app: Flask, request: Request) -> NullSession:
        return self._none


class BoundedRequest(Request):
    """A request. What it may hold is the same for all of them; Flask looks it up in the settings each time."""

    max_content_length = MAX_BODY + 1  # at its limit Werkzeug cuts a chunked body and says nothing


class App(Flask):
    """Flask without finding out at each request what is the same for all of ours."""

    request_class = BoundedRequest
    session_interface = NoSessions()

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """As it is: every view is a plain function."""
        return func

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """For a map without hosts and subdomains: by the path alone, whatever the `Host` may be."""
        if request is None or "HTTP_UPGRADE" in request.environ:  # which Werkzeug refuses
            return super().create_url_adapter(request)
        return MapAdapter(
            self.url_map, "", request.root_path, "", request.scheme, request.path, request.method
        )


def create_app(settings: Settings, services: wiring.Services | None = None) -> Flask:
    """An application for these settings. `services` replaces what `wiring.build` would make, in tests."""
    logs.configure(settings.log_format, settings.log_level)
    app = App(__name__, static_folder=None, template_folder="web/templates")
    app.url_map.merge_slashes = False  # `//` in a path is a mistake to tell, not to redirect
    if settings.trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=settings.trusted_proxies, x_proto=0)  # type: ignore[method-assign]
    app.wsgi_app = gate.Gate(app.wsgi_app, settings.most_requests)  # type: ignore[method-assign]
    app.extensions["slipway"] = services or wiring.build(
        settings, wakeup=wakeup_of(settings), draining=lifecycle.draining
    )
    timing.install(app)
    # Of those that change answers the last but one: what replaces an answer gets the header too.
    caching.install(app)
    problems.install(app)
    app.before_request(gate.refuse_when_full)
    app.before_request(refuse_impossible)
    auth.install(app)
    limits.install(app)
    if settings.reload:
        app.before_request(_reread_agents)
    for module in BLUEPRINTS:
        app.register_blueprint(module.blueprint)
    cli.install(app)
    return app


def _reread_agents() -> None:
    """Look for edited agents, but not for a health check: a `tools.py` may take seconds to import."""
    if request.path not in gate.ALWAYS:
        current_app.extensions["slipway"].catalog.refresh()
