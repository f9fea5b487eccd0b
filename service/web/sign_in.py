"""Sign-in with a password, for the API and for the web page."""

from __future__ import annotations

import logging
from typing import Annotated

from flask import request
from pydantic import Field

from service import errors
from service.auth.users import User
from service.auth.workspaces import DEFAULT_NAME
from service.web.body import PUBLIC_BODY
from service.web.current import services
from service.web.limits import limit_login
from service.web.schemas import Body
from service.web.validation import parse

log = logging.getLogger("slipway.auth")


class Login(Body):
    username: Annotated[str, Field(min_length=1, max_length=128)]
    password: Annotated[str, Field(min_length=1, max_length=1024)]
    workspace: Annotated[str, Field(min_length=1, max_length=64)] = DEFAULT_NAME


def sign_in() -> User:
    """Verify the `Login` in the request's body. Raises `InvalidCredentials` and `RateLimited`, which are counted."""
    limit_login()
    body, address = parse(Login, most=PUBLIC_BODY), request.remote_addr or ""
    try:
        user = services().auth.users.sign_in(body.username, body.password, address, body.workspace)
    except errors.RateLimited:
        services().infra.metrics.rate_limited("login")
        raise
    except errors.InvalidCredentials:
        services().infra.metrics.login_failed()
        log.info("login_refused", extra={"address": address})
        raise
    log.info("login", extra={"user": user.id})
    return user
