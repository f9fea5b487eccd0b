"""Sign-in of the web page, with the refresh token in a cookie; other clients use `/v1/auth`."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from flask import Blueprint, Response

from service import errors
from service.auth.tokens import actor_of
from service.store.actor import act_as
from service.web import page_cookie
from service.web.admission import public
from service.web.authentication import checked_claims
from service.web.current import services
from service.web.limits import limit_refresh
from service.web.openapi import api
from service.web.problems import problem_response
from service.web.sign_in import Login, sign_in

blueprint = Blueprint("page_sign_in", __name__)


@blueprint.post("/page/sign-in")
@api(
    "Sign in on the web page",
    tag="Web page",
    body=Login,
    returns={200: page_cookie.AccessToken},
    errors=[errors.InvalidCredentials, errors.RateLimited, errors.CrossSite],
)
@public
def page_sign_in() -> Response:
    page_cookie.refresh_token()
    return page_cookie.answer_with(services().auth.tokens.begin(sign_in()))


@blueprint.post("/page/renew")
@api(
    "Renew the web page's tokens; 204 where nobody is signed in",
    tag="Web page",
    returns={200: page_cookie.AccessToken, 204: None},
    errors=[errors.InvalidToken, errors.RateLimited, errors.CrossSite],
)
@public
def page_renew() -> Response:
    """Renew the token pair by the cookie; a token that is spent or over is taken out of the browser."""
    token = page_cookie.refresh_token()
    if not token:
        return Response(status=204)
    try:
        claims = _claims(token)
        limit_refresh(str(claims["sub"]))
        return page_cookie.answer_with(services().auth.tokens.renew(claims))
    except errors.InvalidToken as error:
        return page_cookie.without_cookie(problem_response(error))


@blueprint.post("/page/sign-out")
@api("Sign out on the web page", tag="Web page", returns={204: None}, errors=[errors.CrossSite])
@public
def page_sign_out() -> Response:
    """Revoke the cookie's log-in, on all workers at once, and take the cookie out of the browser."""
    token = page_cookie.refresh_token()
    if token:
        with suppress(errors.InvalidToken):  # over already
            services().auth.revocations.end(str(_claims(token)["fam"]))
    return page_cookie.without_cookie(Response(status=204))


def _claims(token: str) -> dict[str, Any]:
    """Verify a refresh token, whose user is the actor from now on. Raises `InvalidToken`."""
    claims = checked_claims("refresh", token)
    act_as(actor_of(claims))
    return claims
