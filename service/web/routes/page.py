"""Web page, its few static files, and the documentation to read in a browser."""

from __future__ import annotations

import hashlib
from pathlib import Path

from flask import Blueprint, Response, render_template, request

from service.error_table import all_errors
from service.errors import NotFound
from service.web.admission import public
from service.web.current import services
from service.web.openapi import api

blueprint = Blueprint("ui", __name__)

_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# In memory, as they are few and small; a name that is not a key can be no path to another file.
_FOLDER = Path(__file__).parents[1] / "assets"
ASSETS = {
    path.relative_to(_FOLDER).as_posix(): path.read_bytes()
    for path in sorted(_FOLDER.rglob("*"))
    if path.suffix in _TYPES
}
# Part of every asset's URL. Modules import each other relatively, so a page never mixes two releases.
VERSION = hashlib.sha256(
    b"\0".join(part for item in ASSETS.items() for part in (item[0].encode(), item[1]))
).hexdigest()[:12]
PAGE_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "object-src 'none'; require-trusted-types-for 'script'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}


@blueprint.get("/")
@api("Web page: sign-in, chat, approvals, sessions, usage", tag="Documentation")
@public
def home() -> Response:
    identities = services().auth.identities
    return _page("home.html", sso=identities is not None and identities.page is not None)


@blueprint.get("/docs")
@api("API reference as a page", tag="Documentation")
@public
def docs() -> Response:
    return _page("docs.html")


@blueprint.get("/docs/errors")
@api("Error codes as a page; the `type` of a problem points here", tag="Documentation")
@public
def docs_errors() -> Response:
    return _page("errors.html", errors=all_errors())


@blueprint.get("/assets/<path:name>")
@api("Static file of the web page", tag="Documentation", errors=[NotFound])
@public
def asset(name: str) -> Response:
    """Serve a file: cacheable for a year under the current version, else revalidated each time."""
    version, _, file = ("", "", name) if name in ASSETS else name.partition("/")
    content = ASSETS.get(file)
    if content is None:
        raise NotFound(f"The web page has no file {file}.")
    response = Response(content, mimetype=_TYPES[Path(file).suffix])
    response.headers["Cache-Control"] = (
        "public, max-age=31536000, immutable" if version == VERSION else "no-cache"
    )
    response.set_etag(VERSION)
    response.make_conditional(request)
    return response


def _page(template: str, **values: object) -> Response:
    return Response(
        render_template(template, assets=f"/assets/{VERSION}", **values),
        mimetype="text/html",
        headers=PAGE_HEADERS,
    )
