"""Sign-in by the authorization code flow with PKCE (S256), `state` and `nonce`.

What the browser must bring back is in its cookie: `state` shows that the answer belongs to a sign-in that this very
browser began, the code verifier and `nonce` that code and ID token do.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeGuard
from urllib.parse import urlsplit

import orjson
from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.client import OAuth2Client
from authlib.oauth2.rfc6749.parameters import prepare_token_request
from itsdangerous import BadData, URLSafeTimedSerializer

from service.auth.oidc.issuer import Issuer
from service.auth.oidc.refusals import Forged
from service.auth.oidc.tokens import Claims, id_claims
from service.errors import IdentityUnavailable, UnknownIdentity
from service.infra.redis import RedisStore

CALLBACK = "/page/oidc/callback"
LIFE_SECONDS = 600  # from the redirect to the issuer until the browser is back
_FORM = "application/x-www-form-urlencoded"
_MOST_LETTERS = 4096  # of a parameter that the browser brings back, and of an address
# Errors (RFC 6749, 5.2) for which OIDC_CLIENT_ID, OIDC_CLIENT_SECRET or the client's registration is wrong.
_OWN_FAULTS = ("invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_request")
_USED = "slipway:oidc:used:"


class Begun(NamedTuple):
    """Address of the issuer's sign-in, and the cookie to keep meanwhile."""

    url: str
    cookie: str


class Client(NamedTuple):
    """Registration of this service at the issuer. Without a `secret` it is a public client, by PKCE alone."""

    id: str
    secret: str
    redirect_uri: str


class SignIn:
    """Sign-in of the web page. `secret` is SECRET_KEY, of which the cookie's own key is derived."""

    def __init__(self, issuer: Issuer, client: Client, redis_store: RedisStore, secret: str) -> None:
        self._issuer = issuer
        self._client = client
        self._redis_store = redis_store
        key = hmac.digest(secret.encode(), b"slipway sign-in by OpenID Connect", "sha256")
        self._sealer = URLSafeTimedSerializer(key, serializer=orjson)

    def begin(self) -> Begun:
        """Begin a sign-in. Raises `IdentityUnavailable`, also for an issuer without PKCE by S256."""
        metadata = self._issuer.known().metadata
        address = metadata.get("authorization_endpoint")
        methods = _listed(metadata, "code_challenge_methods_supported", "S256")
        if not _is_address(address) or "S256" not in methods:
            raise IdentityUnavailable("The identity provider has no sign-in with PKCE (S256).")
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        client = OAuth2Client(
            None, self._client.id, redirect_uri=self._client.redirect_uri, code_challenge_method="S256"
        )
        url, _ = client.create_authorization_url(
            address, state, verifier, scope="openid profile email", nonce=nonce
        )
        sealed = self._sealer.dumps([state, nonce, verifier])
        return Begun(str(url), sealed if isinstance(sealed, str) else sealed.decode())

    def finish(self, cookie: str, answer: Mapping[str, str]) -> Claims:
        """Verify the issuer's answer, exchange its code, and verify the ID token.

        Raises `Forged` for an answer that is not of this browser's sign-in, or was used, `UnknownIdentity` for one that
        the issuer refused, and `IdentityUnavailable`.
        """
        state, nonce, verifier = self._kept(cookie)
        if not hmac.compare_digest(state.encode(), answer.get("state", "").encode()):
            raise Forged()
        if self._is_used(state):
            raise Forged()
        self._check_sender(answer.get("iss"))
        if "error" in answer:
            raise UnknownIdentity("The identity provider did not let you sign in.")
        code = answer.get("code", "")
        if not 0 < len(code) <= _MOST_LETTERS or not code.isascii() or not code.isprintable():
            raise Forged()
        tokens = self._exchange(code, verifier)
        access = tokens.get("access_token")
        access_token = access if isinstance(access, str) else None
        return id_claims(self._issuer, str(tokens.get("id_token")), self._client.id, nonce, access_token)

    def _kept(self, cookie: str) -> tuple[str, str, str]:
        """Open the cookie. Raises `Forged` for one that is over, changed or not there."""
        try:
            state, nonce, verifier = self._sealer.loads(cookie, max_age=LIFE_SECONDS)
        except (BadData, ValueError):
            raise Forged() from None
        return state, nonce, verifier

    def _is_used(self, state: str) -> bool:
        """Return whether a state has come back before. Without Redis the issuer alone refuses a code that is used."""
        first = self._redis_store.call(
            lambda client: bool(client.set(_USED + state, b"1", nx=True, ex=LIFE_SECONDS)), True
        )
        return not first

    def _check_sender(self, sender: str | None) -> None:
        """Check that the answer is this issuer's, and not another's (RFC 9207). Raises `Forged`."""
        needed = self._issuer.known().metadata.get("authorization_response_iss_parameter_supported") is True
        if sender != self._issuer.url and (needed or sender is not None):
            raise Forged()

    def _exchange(self, code: str, verifier: str) -> dict[str, Any]:
        """Exchange a code for tokens. Raises `Forged` where the issuer refuses it, and `IdentityUnavailable`."""
        metadata = self._issuer.known().metadata
        address = metadata.get("token_endpoint")
        if not _is_address(address):
            raise IdentityUnavailable("The identity provider has no token endpoint.")
        body = prepare_token_request(
            "authorization_code",
            redirect_uri=self._client.redirect_uri,
            code=code,
            code_verifier=verifier,
        )
        auth = ClientAuth(self._client.id, self._client.secret, self._auth_method(metadata))
        url, headers, body = auth.prepare("POST", address, {"Content-Type": _FORM}, body)
        answer = self._issuer.fetch(url, method="POST", headers=headers, body=body)
        try:
            tokens = orjson.loads(answer.body)
        except ValueError:
            tokens = None
        if not isinstance(tokens, dict):
            raise self._issuer.unusable(f"no JSON object of the token endpoint, status {answer.status}")
        if (error := tokens.get("error")) in _OWN_FAULTS:
            raise self._issuer.unusable(f"{error} of the token endpoint")
        if answer.status != 200:
            raise Forged()
        return tokens

    def _auth_method(self, metadata: Mapping[str, Any]) -> str:
        if not self._client.secret:
            return "none"
        offered = _listed(metadata, "token_endpoint_auth_methods_supported", "client_secret_basic")
        return "client_secret_basic" if "client_secret_basic" in offered else "client_secret_post"


def _listed(metadata: Mapping[str, Any], name: str, default: str) -> list[str]:
    """Return a list of texts of the discovery document; the default for one that is none."""
    found = metadata.get(name)
    if isinstance(found, list) and all(isinstance(one, str) for one in found):
        return found
    return [default]


def _is_address(value: object) -> TypeGuard[str]:
    """Return whether a field of the discovery document is an address of HTTP with a host."""
    if not isinstance(value, str) or len(value) > _MOST_LETTERS:
        return False
    try:
        parts = urlsplit(value)
        named = bool((parts.hostname or "").encode("idna")) and parts.port != 0
    except ValueError:
        return False
    return named and parts.scheme in ("https", "http")
