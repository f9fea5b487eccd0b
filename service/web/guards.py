"""Who is asking. Every route is either guarded or says that it is public; a test holds that."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from flask_jwt_extended import decode_token
from flask_jwt_extended.exceptions import JWTExtendedException
from jwt import ExpiredSignatureError, PyJWTError

from service.agents.suggest import did_you_mean
from service.auth.keys import PREFIX as KEY_PREFIX
from service.auth.keys import may_use
from service.auth.tokens import LEEWAY, Kind, caller_of
from service.errors import Forbidden, InvalidToken, NotFound, Unauthenticated
from service.observe import logs
from service.types import Caller
from service.web.current import application, asked, own

if TYPE_CHECKING:
    from service.agents.definitions import AgentDefinition
    from service.wiring import Services

V = TypeVar("V", bound=Callable[..., Any])
_RANK = {"user": 0, "operator": 1, "admin": 2}
_KNOWN_MOST = 4096  # access tokens whose signature this process remembers to have checked
# What decoding a made-up token may raise: its payload is parsed before its signature is checked.
_WRONG = (
    PyJWTError,
    JWTExtendedException,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


def services() -> Services:
    """Everything the application is made of."""
    built: Services = application().extensions["slipway"]
    return built


def current_caller() -> Caller:
    """Who is asking, behind a guard."""
    caller: Caller = own().caller
    return caller


def allowed_agent(name: str) -> AgentDefinition:
    """The agent in its present version. Raises `NotFound`, also where it is not the caller's to use."""
    found = services().catalog.agents.get(name)
    if found is None or not may_use(current_caller(), f"agents:{name}"):
        raise NotFound(no_agent(name))
    return found


def no_agent(name: str) -> str:
    """Say that there is none, and which name is similar: of those that the caller may use, and no other."""
    caller = current_caller()
    known = [agent for agent in services().catalog.agents if may_use(caller, f"agents:{agent}")]
    return f"There is no agent named {name}{did_you_mean(name, known) or '.'}"


def guard(
    role: Literal["operator", "admin"] | None = None, *, scope: str | None = None, ends: bool = False
) -> Callable[[V], V]:
    """Let a view be called only by those who are known, have `role` or more, and whose key allows `scope`.

    The call counts against the caller's LIMIT_READS or LIMIT_WRITES, unless the view counts it as a run, or `ends`
    something: whoever has used a stolen token to the limit must not keep its owner from that.
    `scope` may name arguments of the route: `agents:{agent}`. Raises `Unauthenticated`, `RateLimited` or `Forbidden`.
    """

    def wrap(view: V) -> V:
        confirms = hasattr(view, "__confirms__")  # it counts the call itself, and then does this too

        @wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            caller = _identify()
            logs.bind(user=caller.user_id)
            if ends:
                confirm_login()
            elif not confirms:
                application().extensions["slipway_limits"].call()
            if role is not None and _RANK.get(caller.role, 0) < _RANK[role]:
                raise Forbidden(f"This needs the role {role}.")
            if scope is not None and not may_use(caller, scope.format(**kwargs)):
                raise Forbidden("The scopes of this API key do not allow that.")
            return view(*args, **kwargs)

        guarded.__guard__ = role or "user"  # type: ignore[attr-defined]
        guarded.__ends__ = ends  # type: ignore[attr-defined]
        return cast(V, guarded)

    return wrap


def login_to_confirm() -> str | None:
    """The token family of a caller of whom only the token is known to be right; None when all is confirmed."""
    family: str | None = own().get("unconfirmed")
    return family


def confirm_login(seen: Sequence[bytes | None] | None = None) -> None:
    """Raises `InvalidToken` when the caller's log-in has ended; for `seen` see `Revocations.is_revoked`.

    Whoever counts the call does it, by the same round trip to Redis.
    """
    family = own().pop("unconfirmed", None)
    if family is not None and services().revocations.is_revoked(family, seen):
        raise InvalidToken("This log-in has ended.")


def public(view: V) -> V:
    """Mark a view that anybody may call."""
    view.__public__ = True  # type: ignore[attr-defined]
    return view


def is_public(view: Callable[..., Any]) -> bool:
    return bool(getattr(view, "__public__", False))


def is_guarded(view: Callable[..., Any]) -> bool:
    return hasattr(view, "__guard__")


def bearer() -> str:
    """The bearer token of the request. Raises `Unauthenticated` when there is none."""
    sent: str = asked().environ.get("HTTP_AUTHORIZATION", "")
    scheme, _, token = sent.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("Send `Authorization: Bearer …` or `x-api-key: slp_…`.")
    return token.strip()


def checked_claims(token: str, kind: Kind) -> dict[str, Any]:
    """The claims of a token whose signature, dates, issuer, audience and kind are right.

    Raises `InvalidToken`; says nothing of whether the log-in has ended since.
    """
    try:
        claims: dict[str, Any] = decode_token(token)
        if services().tokens.accepts(claims, kind):
            return claims
    except ExpiredSignatureError:  # ours, once
        raise InvalidToken("The token is not valid, or no longer.") from None
    except _WRONG:
        pass
    own().made_up = True
    raise InvalidToken("The token is not valid, or no longer.")


def _identify() -> Caller:
    """Who is asking, from now on the `current_caller`."""
    sent, ours = asked().environ, own()
    key = sent.get("HTTP_X_API_KEY")
    if key is not None and sent.get("HTTP_AUTHORIZATION", "")[:7].lower() != "bearer ":
        caller = _of_key(key.strip())
    elif (token := bearer()).startswith(KEY_PREFIX):
        caller = _of_key(token)
    else:
        caller = _signed(token)
        ours.unconfirmed = caller.family
    ours.caller = caller
    return caller


def _of_key(key: str) -> Caller:
    """Find the caller of an API key. Raises `InvalidToken`."""
    try:
        return services().keys.caller(key)
    except InvalidToken:
        own().made_up = True
        raise


def made_up() -> bool:
    """Whether the request was refused for a key or token that is not ours."""
    return bool(own().get("made_up"))


def _signed(token: str) -> Caller:
    """Who an access token speaks for. Its signature is checked once per process: that is what costs."""
    known: dict[str, tuple[Caller, float]] = application().extensions["slipway_tokens"]
    caller, until = known.get(token, (None, 0.0))
    if caller is not None and time.time() < until:
        return caller
    claims = checked_claims(token, "access")
    caller = caller_of(claims)
    if len(known) >= _KNOWN_MOST:
        known.clear()
    known[token] = (caller, claims["exp"] + LEEWAY)
    return caller
