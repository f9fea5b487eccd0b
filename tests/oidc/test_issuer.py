"""Discovery document and keys of an issuer: cached, rotated, flooded with made-up key ids, and gone."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask

from service.auth.oidc import issuer as issuers
from service.auth.oidc.issuer import Issuer
from service.auth.oidc.refusals import Forged
from service.errors import IdentityUnavailable
from service.infra.http import NoAnswer, SafeClient
from tests.oidc.conftest import Make, me, services
from tests.oidc.issuer import StubIssuer, public_jwk

DISCOVERY = "/.well-known/openid-configuration"


def known_to(app: Flask) -> Issuer:
    found: Issuer = services(app).auth.identities.issuer
    return found


def test_document_and_keys_are_fetched_once(app: Flask, issuer: StubIssuer) -> None:
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda n: me(app, issuer.token(sub=f"u{n}")).status_code, range(16)))
    assert set(statuses) == {200}
    assert issuer.asked == {DISCOVERY: 1, "/jwks": 1}


def test_rotation_during_use_refuses_nobody(app: Flask, issuer: StubIssuer) -> None:
    """A new key signs at once, and tokens of the old one are used until they end."""
    assert me(app, issuer.token()).status_code == 200
    issuer.keys = [public_jwk("one"), public_jwk("two")]
    issuer.delay = 0.1  # the fetch takes a moment, and all wait for it
    tokens = [issuer.token(("one", "two")[n % 2], sub=f"u{n}") for n in range(24)]
    with ThreadPoolExecutor(8) as pool:
        statuses = Counter(pool.map(lambda token: me(app, token).status_code, tokens))
    assert statuses == {200: 24}
    assert issuer.asked["/jwks"] == 2


def test_old_key_is_refused_once_it_is_withdrawn(app: Flask, issuer: StubIssuer) -> None:
    assert me(app, issuer.token()).status_code == 200
    issuer.keys = [public_jwk("two")]
    assert me(app, issuer.token("two")).status_code == 200
    assert me(app, issuer.token(sub="b")).status_code in (401, 503)  # 503: asked a moment ago


def test_flood_of_made_up_key_ids_does_not_reach_the_issuer(make: Make, issuer: StubIssuer) -> None:
    app = make(LIMIT_REFUSED="50/hour")
    assert me(app, issuer.token()).status_code == 200
    statuses = Counter(
        me(app, issuer.token("stranger", headers={"kid": f"made-up-{n}"})).status_code for n in range(60)
    )
    assert issuer.asked["/jwks"] == 2  # once for all of them
    assert statuses == {401: 1, 503: 49, 429: 10}
    assert me(app, issuer.token(sub="b")).status_code == 200


def test_key_that_is_not_known_is_asked_for_again_after_the_pause(
    app: Flask, issuer: StubIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuers, "PAUSE_SECONDS", 0.3)
    assert me(app, issuer.token()).status_code == 200
    assert me(app, issuer.token("two")).status_code == 401
    issuer.keys.append(public_jwk("two"))
    early = me(app, issuer.token("two"))
    assert (early.status_code, early.json["code"]) in ((503, "identity_unavailable"), (200, None))
    assert int(early.headers["Retry-After"]) >= 1
    time.sleep(0.3)
    assert me(app, issuer.token("two")).status_code == 200


def test_cached_keys_go_on_while_the_issuer_is_away(
    app: Flask, issuer: StubIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert me(app, issuer.token()).status_code == 200
    issuer.answers = {DISCOVERY: (503, b"")}
    monkeypatch.setattr(known_to(app), "_stale_at", 0.0)
    assert me(app, issuer.token(sub="b")).status_code == 200  # tried in the background
    for thread in threading.enumerate():
        if thread.name == "oidc":
            thread.join(60)
    assert issuer.asked[DISCOVERY] == 2
    assert me(app, issuer.token(sub="c")).status_code == 200
    answer = me(app, issuer.token("two"))  # a key that may be new
    assert (answer.status_code, answer.json["code"]) == (503, "identity_unavailable")


def test_stale_keys_are_fetched_in_the_background(
    app: Flask, issuer: StubIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert me(app, issuer.token()).status_code == 200
    issuer.keys = [public_jwk("two")]
    monkeypatch.setattr(known_to(app), "_stale_at", 0.0)
    known_to(app).known()
    for thread in threading.enumerate():
        if thread.name == "oidc":
            thread.join(60)
    assert [key.key_id for key in known_to(app).known().keys] == ["two"]


def test_issuer_that_never_answered_is_503_and_then_comes(
    app: Flask, issuer: StubIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.answers = {DISCOVERY: (500, b"SECRET of the issuer")}
    answer = me(app, issuer.token())
    assert (answer.status_code, answer.json["code"]) == (503, "identity_unavailable")
    assert int(answer.headers["Retry-After"]) == issuers.PAUSE_SECONDS and "SECRET" not in answer.text
    assert me(app, issuer.token()).status_code == 503 and issuer.asked[DISCOVERY] == 1
    issuer.answers = {}
    monkeypatch.setattr(known_to(app), "_next_fetch", 0.0)
    assert me(app, issuer.token()).status_code == 200


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        (DISCOVERY, (302, b"")),
        (DISCOVERY, (404, b"{}")),
        (DISCOVERY, (200, b"no JSON")),
        (DISCOVERY, (200, b"[]")),
        (DISCOVERY, (200, b" " * 300_000)),
        ("/jwks", (302, b"")),
        ("/jwks", (200, b"{}")),
        ("/jwks", (200, b'{"keys": {}}')),
        ("/jwks", (200, b'{"keys": []}')),
        ("/jwks", (200, b'{"keys": [1, {"kty": "RSA"}, {"kty": "PQ"}, {"kty": "oct", "k": "AQAB"}]}')),
    ],
)
def test_answer_that_cannot_be_used(issuer: StubIssuer, path: str, answer: tuple[int, bytes]) -> None:
    issuer.answers = {path: answer}
    with pytest.raises(IdentityUnavailable):
        Issuer(issuer.url).known()
    assert not issuer.asked["/elsewhere"]


@pytest.mark.parametrize("named", ["https://evil.example", "", None, "/"])
def test_document_of_another_issuer(issuer: StubIssuer, named: str | None) -> None:
    issuer.metadata = {"issuer": issuer.url + "/" if named == "/" else named}
    with pytest.raises(IdentityUnavailable):
        Issuer(issuer.url).known()


@pytest.mark.parametrize(
    "elsewhere",
    ["http://169.254.169.254/jwks", "http://10.0.0.1/jwks", "http://localhost:PORT/jwks", "file:///x", ""],
)
def test_only_the_issuers_own_host_may_be_private(issuer: StubIssuer, elsewhere: str) -> None:
    """The operator chose the issuer's host; what its document names is another's word."""
    issuer.metadata = {"jwks_uri": elsewhere.replace("PORT", issuer.url.rpartition(":")[2])}
    with pytest.raises(IdentityUnavailable):
        Issuer(issuer.url).known()


def test_long_answer_is_not_read_to_its_end(issuer: StubIssuer) -> None:
    issuer.answers = {"/jwks": (200, b"x" * 1000)}
    client = SafeClient(allow_private=True)
    assert client.exchange("GET", f"{issuer.url}/jwks", {}, most=1000).body == b"x" * 1000
    with pytest.raises(NoAnswer):
        client.exchange("GET", f"{issuer.url}/jwks", {}, most=999)


def test_issuer_over_tls_names_no_address_without(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    found = Issuer("https://login.example")
    monkeypatch.setattr("service.infra.http.SafeClient.exchange", lambda *args, **options: asked.append(args))
    with pytest.raises(IdentityUnavailable):
        found.fetch("http://login.example/jwks")
    assert not asked


def test_silent_issuer_costs_its_time_once(issuer: StubIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuers, "SECONDS", 0.2)
    issuer.delay = 1.0
    found = Issuer(issuer.url)
    with ThreadPoolExecutor(8) as pool:
        errors = list(pool.map(lambda _: type(refusal(found)), range(16)))
    assert set(errors) == {IdentityUnavailable} and issuer.asked[DISCOVERY] == 1


def test_waiting_threads_are_bounded(issuer: StubIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Issuer(issuer.url)
    known = found.known()
    monkeypatch.setattr(found, "_places", threading.BoundedSemaphore(1))
    issuer.delay = 0.3
    first = threading.Thread(target=lambda: refusal(found, known))
    first.start()
    while not found._fetching.locked():
        time.sleep(0.001)
    with pytest.raises(Forged) as refused:
        found.newer(known)
    assert isinstance(refused.value.answer, IdentityUnavailable) and first.is_alive()
    first.join(60)


def refusal(issuer: Issuer, than: Any = None) -> Exception | None:
    try:
        issuer.newer(than) if than else issuer.known()
    except (IdentityUnavailable, Forged) as error:
        return error
    return None
