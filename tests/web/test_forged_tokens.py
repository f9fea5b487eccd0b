"""Forged tokens over HTTP: signed with the service's own key or another, each is 401 `invalid_token`, at every door."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from service.auth.signing_keys import SigningKey
from service.auth.users import User
from tests.auth.forging import (
    Json,
    claims_of,
    encoded,
    forged,
    wrong_access,
    wrong_claims,
    wrong_headers,
    wrong_signatures,
)
from tests.auth.house import SECRET, Replica

WYCHEPROOF = Path(__file__).parent.parent / "data" / "wycheproof" / "json_web_signature_test.json"
DOORS = (("GET", "/v1/auth/me"), ("POST", "/v1/agents/plain/invoke"), ("POST", "/v1/auth/refresh"))


def accepted(here: Replica, tokens: Iterable[tuple[str, str]]) -> list[str]:
    """Return the tokens that any door answers with something else than 401; an empty one is none."""
    found = []
    for name, token in tokens:
        headers = {"Authorization": f"Bearer {token}".encode().decode("latin-1")}
        for method, path in DOORS:
            answer = here.client().open(path, method=method, headers=headers)
            code = (answer.get_json(silent=True) or {}).get("code")
            given = answer.status_code, code, answer.headers.get("WWW-Authenticate"), answer.mimetype
            wanted = "invalid_token" if token else "unauthenticated"
            if given != (401, wanted, "Bearer", "application/problem+json"):
                found.append(f"{name}: {method} {path} {given}")
    return found


def key_of(here: Replica) -> SigningKey:
    return here.signing_keys.current()


def test_wrong_claims_with_the_right_key(here: Replica, ada: User) -> None:
    pair, key = here.login(), key_of(here)
    access, refresh = claims_of(pair["access_token"]), claims_of(pair["refresh_token"])
    wrong = [*wrong_claims(access), *wrong_access(access), *wrong_claims(refresh)]
    assert len(wrong) > 300
    assert accepted(here, ((name, forged(key, claims)) for name, claims in wrong)) == []
    other = (
        here.login()
    )  # as an access token that says `refresh` has ended the first log-in, like any spent one
    assert here.status(forged(key, claims_of(other["access_token"]))) == 200
    assert (
        here.client(forged(key, claims_of(other["refresh_token"]))).post("/v1/auth/refresh").status_code
        == 200
    )


def test_wrong_headers_with_the_right_key(here: Replica, ada: User) -> None:
    pair, key = here.login(), key_of(here)
    for token in pair["access_token"], pair["refresh_token"]:
        claims, headers = claims_of(token), wrong_headers(dict(key.header))
        assert accepted(here, ((name, forged(key, claims, header)) for name, header in headers)) == []


def test_wrong_signatures(here: Replica, ada: User) -> None:
    pair = here.login()
    for token in pair["access_token"], pair["refresh_token"]:
        assert accepted(here, wrong_signatures(token)) == []


def test_other_keys(here: Replica, ada: User) -> None:
    """Check a key pair under the right `kid`, and all that is public as a secret for HMAC."""
    pair, key = here.login(), key_of(here)
    assert isinstance(key.signing, Ed25519PrivateKey)
    public = key.signing.public_key()
    spki = [
        public.public_bytes(form, PublicFormat.SubjectPublicKeyInfo) for form in (Encoding.PEM, Encoding.DER)
    ]
    (jwk,) = here.client().get("/.well-known/jwks.json").get_json()["keys"]
    secrets = [
        *spki,
        public.public_bytes_raw(),
        jwk["x"].encode(),
        json.dumps(jwk).encode(),
        b"",
        SECRET.encode(),
    ]

    def tokens() -> Iterator[tuple[str, str]]:
        for token in pair["access_token"], pair["refresh_token"]:
            claims = claims_of(token)
            yield "another pair", forged(replace(key, signing=Ed25519PrivateKey.generate()), claims)
            for header in ({**key.header, "alg": "HS256"}, {"typ": "JWT", "alg": "HS256"}):
                text = ".".join(encoded(json.dumps(part).encode()) for part in (header, claims))
                for secret in secrets:
                    mac = hmac.digest(secret, text.encode(), "sha256")
                    yield f"HMAC with {secret[:20]!r}", f"{text}.{encoded(mac)}"

    assert accepted(here, tokens()) == []


def vectors() -> list[tuple[Json, Json]]:
    """Return all tests of the file, each with its group."""
    groups = json.loads(WYCHEPROOF.read_text())["testGroups"]
    return [(group, test) for group in groups for test in group["tests"]]


def test_wycheproof_signatures_are_refused(here: Replica) -> None:
    """Check all vectors, valid ones too: no key and no algorithm of theirs is ours."""
    tokens = [(f"{test['tcId']} {test['comment']}", test["jws"]) for _, test in vectors()]
    assert len(tokens) == 401
    assert accepted(here, tokens) == []


def test_wycheproof_signatures_are_refused_under_a_known_key(
    here: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check all vectors where their own key is a known one: a key stays with its algorithm, whatever a header says."""
    key = key_of(here)
    for group, test in vectors():
        jwk = group.get("public") or group["private"]
        with suppress(jwt.PyJWTError):
            key = replace(key, verifying=jwt.PyJWK(jwk).key)
        key = replace(key, kid=str(jwk.get("kid")))
        monkeypatch.setattr(here.signing_keys, "_keys", {key.kid: key})
        with pytest.raises(jwt.PyJWTError):
            here.signing_keys.verifying(jwt.get_unverified_header(test["jws"]))
        assert accepted(here, [(f"{test['tcId']} {test['comment']}", test["jws"])]) == []
