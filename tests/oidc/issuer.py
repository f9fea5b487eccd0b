"""An OpenID Connect issuer of the tests' own: HTTP on loopback, keys that rotate, and tokens that no real one makes."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

AUDIENCE, CLIENT = "https://slipway.example", "slipway-page"
_MADE: dict[tuple[str, str], Any] = {}


def private_key(kid: str, algorithm: str = "RS256") -> Any:
    """A key pair by its name: RSA pairs take long to make."""
    if (kid, algorithm) not in _MADE:
        make: Callable[[], Any] = {
            "E": lambda: (
                ed25519.Ed25519PrivateKey.generate()
                if algorithm.startswith("Ed")
                else ec.generate_private_key(ec.SECP256R1())
            ),
        }.get(algorithm[0], lambda: rsa.generate_private_key(65537, 2048))
        _MADE[kid, algorithm] = make()
    return _MADE[kid, algorithm]


def public_jwk(name: str, algorithm: str = "RS256", /, **changed: Any) -> dict[str, Any]:
    public = private_key(name, algorithm).public_key()
    kinds = {"R": RSAAlgorithm, "P": RSAAlgorithm, "E": ECAlgorithm}
    kind: Any = OKPAlgorithm if algorithm.startswith("Ed") else kinds[algorithm[0]]
    told = {**kind.to_jwk(public, as_dict=True), "kid": name, "use": "sig", "alg": algorithm}
    return {name: value for name, value in {**told, **changed}.items() if value is not None}


def part(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(header: dict[str, Any], claims: dict[str, Any], kid: str = "one") -> str:
    """Sign with RS256, whatever the header says."""
    told = f"{part(header)}.{part(claims)}"
    return f"{told}.{part(RSAAlgorithm(RSAAlgorithm.SHA256).sign(told.encode(), private_key(kid)))}"


@dataclass
class Grant:
    """What an authorization code stands for."""

    challenge: str
    redirect_uri: str
    nonce: str


@dataclass
class StubIssuer:
    url: str = ""
    keys: list[dict[str, Any]] = field(default_factory=lambda: [public_jwk("one")])
    asked: Counter[str] = field(default_factory=Counter)
    metadata: dict[str, Any] = field(default_factory=dict)  # what differs in the discovery document
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)  # in place of the usual ones, by path
    delay: float = 0.0  # seconds until an answer
    grants: dict[str, Grant] = field(default_factory=dict)
    id_changes: dict[str, Any] = field(default_factory=dict)  # what differs in the next ID tokens
    id_headers: dict[str, Any] = field(default_factory=dict)
    id_token: str | None = None  # in place of one
    token_calls: list[tuple[dict[str, str], dict[str, str]]] = field(default_factory=list)

    def reset(self) -> None:
        """Forget what a test has changed."""
        vars(self).update(vars(StubIssuer(self.url)))

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Claims of a right access token, but for the changes; None leaves a claim out."""
        now = int(time.time())
        right = {"iss": self.url, "aud": AUDIENCE, "sub": "ada", "iat": now, "exp": now + 300}
        told = {
            **right,
            "jti": secrets.token_hex(8),
            "azp": "app",
            "scope": "x",
            "preferred_username": "ada",
            **changed,
        }
        return {name: value for name, value in told.items() if value is not None}

    def token(
        self,
        kid: str = "one",
        algorithm: str = "RS256",
        headers: dict[str, Any] | None = None,
        **changed: Any,
    ) -> str:
        sent = {"kid": kid, "typ": "at+jwt", **(headers or {})}
        return jwt.encode(self.claims(**changed), private_key(kid, algorithm), algorithm, headers=sent)

    def discovery(self) -> dict[str, Any]:
        told = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
            "code_challenge_methods_supported": ["S256"],
        }
        return {**told, **self.metadata}

    def agree(self, url: str) -> str:
        """Sign in at the address that a browser was sent to; return the code it brings back."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert asked["response_type"] == "code" and asked["code_challenge_method"] == "S256"
        assert asked["client_id"] == CLIENT and "openid" in asked["scope"].split()
        code = f"code-{len(self.grants)}"
        self.grants[code] = Grant(asked["code_challenge"], asked["redirect_uri"], asked["nonce"])
        return code

    def exchange(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        grant = self.grants.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if grant is None or grant.redirect_uri != form.get("redirect_uri") or part(digest) != grant.challenge:
            return 400, {"error": "invalid_grant", "error_description": "SECRET of the issuer"}
        access = "an-opaque-access-token"
        half = part(hashlib.sha256(access.encode()).digest()[:16])
        told = {"aud": CLIENT, "azp": None, "scope": None, "nonce": grant.nonce, "at_hash": half}
        token = self.token(headers={"typ": "JWT", **self.id_headers}, **{**told, **self.id_changes})
        return 200, {"access_token": access, "token_type": "Bearer", "id_token": self.id_token or token}


@contextmanager
def stub_issuer(port: int = 0) -> Iterator[StubIssuer]:
    stub = StubIssuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            documents = {"/.well-known/openid-configuration": stub.discovery(), "/jwks": {"keys": stub.keys}}
            self.answer(200, documents.get(self.path, {}))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            stub.token_calls.append((dict(self.headers), form))
            self.answer(*stub.exchange(form))

        def answer(self, status: int, document: dict[str, Any]) -> None:
            stub.asked[self.path] += 1
            time.sleep(stub.delay)
            status, body = stub.answers.get(self.path, (status, json.dumps(document).encode()))
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", f"{stub.url}/elsewhere")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Keep the tests' output clean."""

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        stub.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield stub
        server.shutdown()
