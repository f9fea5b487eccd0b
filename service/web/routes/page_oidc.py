"""Sign-in of the web page with an OpenID Connect issuer: there, and back with a code.

Each answer is a redirect, to the issuer or to the page itself, whatever a request asks for.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from flask import Blueprint, Response, request

from service import errors
from service.audit.record import Action
from service.auth.oidc.refusals import Forged
from service.web import page_cookie
from service.web.admission import public
from service.web.current import services
from service.web.limits import limit_login
from service.web.openapi import api

if TYPE_CHECKING:
    from service.auth.oidc.identities import Identities
    from service.auth.oidc.sign_in import SignIn

log = logging.getLogger("slipway.auth")
blueprint = Blueprint("page_oidc", __name__)
_COOKIE = "slipway-oidc"
_LIFE_SECONDS = 600  # of the cookie, which says so itself too
# What the page is told of a sign-in that failed: `/#sign-in-failed=…`.
_REFUSED, _EXPIRED, _AWAY = "refused", "expired", "unavailable"


@blueprint.get("/page/oidc/begin")
@api(
    "Sign in on the web page with the identity provider",
    tag="Web page",
    returns={302: None},
    errors=[errors.NotFound, errors.RateLimited],
)
@public
def begin() -> Response:
    limit_login()
    _, page = _configured()
    try:
        begun = page.begin()
    except errors.IdentityUnavailable:
        return _failed(_AWAY)
    return _with_cookie(_redirect(begun.url), begun.cookie, _LIFE_SECONDS)


@blueprint.get("/page/oidc/callback")
@api(
    "Come back from the identity provider",
    tag="Web page",
    returns={302: None},
    errors=[errors.NotFound, errors.RateLimited],
    query={name: {"type": "string"} for name in ("code", "state", "iss", "error")},
)
@public
def callback() -> Response:
    """Sign in with the issuer's answer; its cookie is taken out of the browser, however that ends."""
    limit_login()
    return _with_cookie(_signed_in(), "", 0)


def _signed_in() -> Response:
    identities, page = _configured()
    try:
        user = identities.user(
            page.finish(request.cookies.get(page_cookie.name_of(_COOKIE), ""), request.args)
        )
        pair = services().auth.tokens.begin(user)
    except Forged as refused:
        return _failed(_AWAY if refused.answer.status == 503 else _EXPIRED)
    except errors.Unavailable:
        return _failed(_AWAY)
    except (errors.UnknownIdentity, errors.InvalidToken, errors.InvalidCredentials, errors.Conflict):
        return _failed(_REFUSED)
    log.info("login", extra={"user": user.id})
    return page_cookie.keep(pair, _redirect("/"))


def _configured() -> tuple[Identities, SignIn]:
    """Return the services of this sign-in. Raises `NotFound` where it is not configured."""
    identities = services().auth.identities
    if identities is None or identities.page is None:
        raise errors.NotFound("No identity provider is configured for the web page.")
    return identities, identities.page


def _failed(reason: str) -> Response:
    if reason != _AWAY:
        services().infra.metrics.login_failed()
        log.info("login_refused", extra={"address": request.remote_addr or ""})
        services().audit.refusals.record(Action.SIGN_IN, "user:unknown")
    return _redirect(f"/#sign-in-failed={reason}")


def _redirect(url: str) -> Response:
    return Response(status=302, headers={"Location": url})


def _with_cookie(response: Response, value: str, seconds: int) -> Response:
    # `Lax`: the browser comes back by a link of the issuer's.
    return page_cookie.put(response, _COOKIE, value, seconds, "Lax")
