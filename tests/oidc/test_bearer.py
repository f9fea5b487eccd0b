"""Access tokens of an issuer as bearers: which pass, and forty ways in which none does."""

from __future__ import annotations

import base64
import hmac
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flask import Flask
from jwt.algorithms import RSAAlgorithm

from tests.conftest import PYTHON, ROOT
from tests.oidc.conftest import Make, me, services, unasked
from tests.oidc.issuer import AUDIENCE, CLIENT, StubIssuer, part, private_key, public_jwk, signed

NOW = int(time.time())


@pytest.fixture
def app(shared: Flask, issuer: StubIssuer, monkeypatch: pytest.MonkeyPatch) -> Flask:
    return unasked(shared, monkeypatch)


@pytest.mark.parametrize("algorithm", ["RS256", "RS512", "PS256", "ES256", "EdDSA"])
@pytest.mark.parametrize("typ", ["at+jwt", "application/at+jwt", "JWT"])
def test_token_of_the_issuer_is_taken(app: Flask, issuer: StubIssuer, algorithm: str, typ: str) -> None:
    issuer.keys = [public_jwk("one", algorithm)]
    answer = me(app, issuer.token(algorithm=algorithm, headers={"typ": typ}))
    assert answer.status_code == 200, answer.text
    assert (answer.json["username"], answer.json["role"]) == ("ada", "user")


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": [AUDIENCE, "another"]},
        {"aud": [AUDIENCE]},
        {"aud": [AUDIENCE, "another"], "azp": None, "client_id": "app"},
        {"azp": None},
        {"nbf": NOW - 5},
        {"iat": NOW + 10, "exp": NOW + 300},
        {"exp": NOW + 299.5},
        {"typ": "Bearer"},
        {"token_use": "access"},
        {"sub": "x" * 255},
        {"sub": "auth0|0123 =?"},
    ],
)
def test_lawful_spellings_pass(app: Flask, issuer: StubIssuer, changed: dict[str, Any]) -> None:
    assert me(app, issuer.token(**changed)).status_code == 200


def test_key_without_an_id_is_found(app: Flask, issuer: StubIssuer) -> None:
    issuer.keys = [public_jwk("one", kid=None, alg=None, use=None)]
    token = jwt.encode(issuer.claims(), private_key("one"), "RS256", headers={"typ": "at+jwt"})
    assert me(app, token).status_code == 200


def test_key_without_an_id_is_rotated(app: Flask, issuer: StubIssuer) -> None:
    for name in ("one", "two"):
        issuer.keys = [public_jwk(name, kid=None)]
        token = jwt.encode(issuer.claims(), private_key(name), "RS256", headers={"typ": "at+jwt"})
        assert me(app, token).status_code == 200
    assert me(app, jwt.encode(issuer.claims(), private_key("stranger"), "RS256")).status_code in (401, 503)


def unsigned(issuer: StubIssuer, algorithm: str = "none") -> str:
    return f"{part({'alg': algorithm, 'kid': 'one'})}.{part(issuer.claims())}."


def by_hmac(issuer: StubIssuer, algorithm: str, encoding: Encoding) -> str:
    """Sign with the public key, which everybody has, as the secret of an HMAC."""
    format_ = PublicFormat.SubjectPublicKeyInfo
    secret = private_key("one").public_key().public_bytes(encoding, format_)
    told = f"{part({'alg': algorithm, 'kid': 'one', 'typ': 'at+jwt'})}.{part(issuer.claims())}"
    return f"{told}.{part(hmac.digest(secret, told.encode(), f'sha{algorithm[2:]}'))}"


def changed_after(issuer: StubIssuer, **changed: Any) -> str:
    header, _, signature = issuer.token().split(".")
    return f"{header}.{part(issuer.claims(**changed))}.{signature}"


def other_key(issuer: StubIssuer, **headers: Any) -> str:
    sent = {"kid": "one", "typ": "at+jwt", **headers}
    return jwt.encode(issuer.claims(), private_key("stranger"), "RS256", headers=sent)


def own_jwk(issuer: StubIssuer) -> str:
    return other_key(issuer, jwk=public_jwk("stranger"))


Forge = Callable[[StubIssuer], str]
FORGED: dict[str, Forge] = {
    "alg none": unsigned,
    "alg None": lambda issuer: unsigned(issuer, "None"),
    "alg empty": lambda issuer: unsigned(issuer, ""),
    "no signature": lambda issuer: unsigned(issuer, "RS256"),
    "HS256, PEM": lambda issuer: by_hmac(issuer, "HS256", Encoding.PEM),
    "HS256, DER": lambda issuer: by_hmac(issuer, "HS256", Encoding.DER),
    "HS384": lambda issuer: by_hmac(issuer, "HS384", Encoding.PEM),
    "HS512": lambda issuer: by_hmac(issuer, "HS512", Encoding.PEM),
    "another's key": other_key,
    "another's key, jku": lambda issuer: other_key(issuer, jku=f"{issuer.url}/jwks-of-mine"),
    "another's key, x5u": lambda issuer: other_key(issuer, x5u=f"{issuer.url}/x5u"),
    "another's key, jwk": own_jwk,
    "another's key, kid of ours": lambda issuer: other_key(issuer, kid="two"),
    "algorithm of another kind": lambda issuer: issuer.token("one", "ES256"),
    "algorithm that the key is not for": lambda issuer: issuer.token("one", "RS384"),
    "critical header": lambda issuer: issuer.token(headers={"crit": ["x"], "x": 1}),
    "kid is a list": lambda issuer: signed({"alg": "RS256", "kid": ["one"]}, issuer.claims()),
    "header is a list": lambda issuer: signed([], issuer.claims()),  # type: ignore[arg-type]
    "header is not encoded": lambda issuer: "{}." + issuer.token().partition(".")[2],
    "kid is a path": lambda issuer: issuer.token(headers={"kid": "../../jwks"}),
    "changed subject": lambda issuer: changed_after(issuer, sub="root"),
    "changed role": lambda issuer: changed_after(issuer, roles=["slipway-admins"]),
    "signature cut": lambda issuer: issuer.token()[:-8],
    "four parts": lambda issuer: issuer.token() + ".x",
    "issuer with a slash": lambda issuer: issuer.token(iss=f"{issuer.url}/"),
    "another issuer": lambda issuer: issuer.token(iss="https://evil.example"),
    "no issuer": lambda issuer: issuer.token(iss=None),
    "another audience": lambda issuer: issuer.token(aud="another"),
    "audience of the page": lambda issuer: issuer.token(aud=CLIENT),
    "no audience": lambda issuer: issuer.token(aud=None),
    "audience is empty": lambda issuer: issuer.token(aud=[]),
    "audience is an object": lambda issuer: issuer.token(aud={AUDIENCE: 1}),
    "audience begins like ours": lambda issuer: issuer.token(aud=f"{AUDIENCE}.evil.example"),
    "several audiences, no azp": lambda issuer: issuer.token(aud=[AUDIENCE, "another"], azp=None),
    "azp is a list": lambda issuer: issuer.token(azp=["app"]),
    "no end": lambda issuer: issuer.token(exp=None),
    "end is text": lambda issuer: issuer.token(exp="never"),
    "end is infinite": lambda issuer: issuer.token(exp=float("inf")),
    "end in a million years": lambda issuer: issuer.token(exp=10**14),
    "lives for a year": lambda issuer: issuer.token(exp=NOW + 365 * 86_400),
    "not yet": lambda issuer: issuer.token(nbf=NOW + 3600),
    "issued tomorrow": lambda issuer: issuer.token(iat=NOW + 86_400, exp=NOW + 86_500),
    "no time of issue": lambda issuer: issuer.token(iat=None),
    "no subject": lambda issuer: issuer.token(sub=None),
    "empty subject": lambda issuer: issuer.token(sub=""),
    "subject is a number": lambda issuer: issuer.token(sub=1),
    "subject too long": lambda issuer: issuer.token(sub="x" * 256),
    "subject with NUL": lambda issuer: issuer.token(sub="a\0b"),
    "subject is half a letter": lambda issuer: issuer.token(sub="\ud800"),
    "ID token: audience": lambda issuer: issuer.token(headers={"typ": "JWT"}, aud=CLIENT, nonce="n"),
    "ID token: nonce": lambda issuer: issuer.token(headers={"typ": "JWT"}, nonce="n"),
    "ID token: at_hash": lambda issuer: issuer.token(headers={"typ": "JWT"}, at_hash="x"),
    "ID token of Keycloak": lambda issuer: issuer.token(headers={"typ": "JWT"}, typ="ID"),
    "refresh token of Keycloak": lambda issuer: issuer.token(headers={"typ": "JWT"}, typ="Refresh"),
    "ID token of Cognito": lambda issuer: issuer.token(headers={"typ": "JWT"}, token_use="id"),
    "logout token": lambda issuer: issuer.token(headers={"typ": "logout+jwt"}),
    "logout token as JWT": lambda issuer: issuer.token(headers={"typ": "JWT"}, events={}),
    "typ is a list": lambda issuer: issuer.token(headers={"typ": ["at+jwt"]}),
    "too long": lambda issuer: issuer.token(filling="x" * 8192),
    "Slipway's own issuer": lambda issuer: issuer.token(iss="slipway", aud="slipway", type="access"),
}


@pytest.mark.parametrize("attack", FORGED)
def test_forged_token_is_refused(app: Flask, issuer: StubIssuer, attack: str) -> None:
    issuer.keys = [public_jwk("one"), public_jwk("two")]
    assert me(app, issuer.token()).status_code == 200
    answer = me(app, FORGED[attack](issuer))
    assert answer.status_code == 401 and answer.json["code"] == "invalid_token", answer.text
    assert me(app, issuer.token()).status_code == 200
    assert not any(path.startswith(("/jwks-of-mine", "/x5u")) for path in issuer.asked)


def test_symmetric_key_in_the_jwks_is_no_key(app: Flask, issuer: StubIssuer) -> None:
    secret = b"a secret that the issuer has published by mistake"
    issuer.keys = [public_jwk("one"), {"kty": "oct", "kid": "shared", "alg": "HS256", "k": part(secret)}]
    token = jwt.encode(issuer.claims(), secret, "HS256", headers={"kid": "shared", "typ": "at+jwt"})
    assert me(app, token).status_code == 401
    assert me(app, issuer.token()).status_code == 200


@pytest.mark.parametrize(
    "changed", [{"use": "enc"}, {"d": "AQAB"}, {"alg": "RS512"}, {"kid": 7}, {"n": "AQAB"}]
)
def test_key_that_is_no_public_key_for_this_signature(
    app: Flask, issuer: StubIssuer, changed: dict[str, Any]
) -> None:
    """Skip keys for encryption, private and short ones, and those of another algorithm."""
    issuer.keys = [public_jwk("spare"), public_jwk("one", **changed)]
    assert me(app, issuer.token()).status_code == 401
    assert me(app, issuer.token("spare")).status_code == 200


@pytest.mark.filterwarnings("ignore")  # both libraries warn of it
def test_short_key_is_no_key(app: Flask, issuer: StubIssuer) -> None:
    made = rsa.generate_private_key(65537, 1024)
    short = {**RSAAlgorithm.to_jwk(made.public_key(), as_dict=True), "kid": "short"}
    issuer.keys = [public_jwk("one"), short]
    assert me(app, jwt.encode(issuer.claims(), made, "RS256", headers={"kid": "short"})).status_code == 401


def test_two_keys_with_one_id_verify_each_its_own(app: Flask, issuer: StubIssuer) -> None:
    issuer.keys = [public_jwk("one"), public_jwk("two", kid="one")]
    claims = issuer.claims()
    for kid in ("one", "two"):
        token = jwt.encode(claims, private_key(kid), "RS256", headers={"kid": "one", "typ": "at+jwt"})
        assert me(app, token).status_code == 200
    assert me(app, other_key(issuer)).status_code == 401


def test_expired_token_is_not_counted_as_forged(make: Make, issuer: StubIssuer) -> None:
    app = make(LIMIT_REFUSED="2/hour")
    for _ in range(4):
        assert me(app, issuer.token(iat=NOW - 900, exp=NOW - 600)).status_code == 401
    assert [me(app, other_key(issuer)).status_code for _ in range(3)] == [401, 401, 429]
    assert me(app, issuer.token()).status_code == 200


def test_without_an_audience_no_token_is_taken(make: Make, issuer: StubIssuer) -> None:
    assert me(make(OIDC_AUDIENCE=""), issuer.token()).status_code == 401


def test_without_an_issuer_nothing_is_loaded_or_asked(make: Make, issuer: StubIssuer) -> None:
    off = dict.fromkeys(("OIDC_ISSUER", "OIDC_AUDIENCE", "OIDC_CLIENT_ID", "OIDC_CLIENT_SECRET"), "")
    app = make(**off)
    assert services(app).auth.identities is None and me(app, issuer.token()).status_code == 401
    assert app.test_client().get("/page/oidc/begin").status_code == 404
    assert not issuer.asked


def test_libraries_are_loaded_for_an_issuer_only(tmp_path: Path) -> None:
    """Whoever has none pays neither their time nor their memory."""
    code = (
        "import sys; from config import load; from service.app import create_app; import json;"
        "create_app(load({'APP_ENV': 'testing', 'SLIPWAY_HOME': sys.argv[2], **json.loads(sys.argv[1])}));"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'authlib', 'joserfc'}))"
    )
    for told, loaded in (({}, "[]"), ({"OIDC_ISSUER": "https://login.example"}, "['authlib', 'joserfc']")):
        done = subprocess.run(
            [PYTHON, "-c", code, json.dumps(told), str(tmp_path)], cwd=ROOT, capture_output=True, text=True
        )
        assert done.stdout.splitlines()[-1:] == [loaded], done.stderr


def test_own_tokens_and_keys_work_as_before(app: Flask, issuer: StubIssuer) -> None:
    who = {"username": "demo", "password": "demo-password"}
    pair = app.test_client().post("/v1/auth/login", json=who, buffered=True).json
    assert me(app, pair["access_token"]).json["username"] == "demo"
    key = services(app).auth.keys.create(services(app).auth.users.by_name("demo").id, "k")["key"]
    assert me(app, key).status_code == 200
    assert not issuer.asked


@pytest.mark.parametrize(
    "payload", [b"[" * 5000, b'{"iss": 1}', b"[]", b"null", b"\xff", b'{"iss":"\\ud800"}']
)
def test_payload_that_names_no_issuer_is_not_for_this_verifier(
    app: Flask, issuer: StubIssuer, payload: bytes
) -> None:
    token = f"{part({'alg': 'RS256', 'kid': 'one'})}.{part(payload)}.x"
    assert me(app, token).status_code == 401 and not issuer.asked


def test_signature_written_another_way_is_the_same_log_in(app: Flask, issuer: StubIssuer) -> None:
    """A token of ECDSA has two signatures that are valid: ending one ends both."""
    issuer.keys = [public_jwk("one", "ES256")]
    token = issuer.token(algorithm="ES256")
    told, _, signature = token.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    mirrored = raw[:32] + (order - int.from_bytes(raw[32:])).to_bytes(32)
    other = f"{told}.{part(mirrored)}"
    assert other != token and me(app, token).status_code == me(app, other).status_code == 200
    headers = {"Authorization": f"Bearer {token}"}
    assert app.test_client().post("/v1/auth/logout", headers=headers).status_code == 204
    assert me(app, token).status_code == me(app, other).status_code == 401


def test_header_and_claims_are_not_in_the_log(
    app: Flask, issuer: StubIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    me(app, issuer.token(secret="do-not-tell"))
    me(app, changed_after(issuer, secret="do-not-tell"))
    assert "do-not-tell" not in json.dumps([record.__dict__ for record in caplog.records], default=str)
