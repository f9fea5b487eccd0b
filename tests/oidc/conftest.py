"""Applications over an issuer of the tests' own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from tests.conftest import RedisServer
from tests.made import app_in, close
from tests.oidc.issuer import AUDIENCE, CLIENT, StubIssuer, stub_issuer

Make = Callable[..., Flask]


@pytest.fixture(scope="module")
def stub() -> Iterator[StubIssuer]:
    with stub_issuer() as made:
        yield made


@pytest.fixture
def issuer(stub: StubIssuer) -> StubIssuer:
    stub.reset()
    return stub


def settings(issuer: StubIssuer, **changed: str) -> dict[str, str]:
    """Settings that trust the issuer, and make users for its identities; an empty one is left out."""
    right = {
        "OIDC_ISSUER": issuer.url,
        "OIDC_AUDIENCE": AUDIENCE,
        "OIDC_CLIENT_ID": CLIENT,
        "OIDC_CLIENT_SECRET": "the-secret-of-the-page",
        "PUBLIC_URL": "http://localhost",
        "OIDC_CREATE_USERS": "true",
        "THREADS": "32",
    }
    return {name: value for name, value in {**right, **changed}.items() if value}


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory, stub: StubIssuer, redis_server: RedisServer
) -> Iterator[Flask]:
    """One application for the tests of a module, with Redis."""
    app = app_in(tmp_path_factory.mktemp("shared"), **settings(stub, REDIS_URL=redis_server.url))
    yield app
    close(app)


def unasked(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Flask:
    """The application as it was before it asked the issuer for anything."""
    issuer = services(app).auth.identities.issuer
    for name, value in {"_known": None, "_stale_at": 0.0, "_next_fetch": 0.0}.items():
        monkeypatch.setattr(issuer, name, value)
    return app


@pytest.fixture
def make(tmp_path: Path, issuer: StubIssuer) -> Iterator[Make]:
    """Makes applications over one database, with the settings of `settings`."""
    made: list[Flask] = []

    def build(**changed: str) -> Flask:
        made.append(app_in(tmp_path, **settings(issuer, **changed)))
        return made[-1]

    yield build
    for app in made:
        close(app)


@pytest.fixture
def app(make: Make) -> Flask:
    return make()


def me(app: Flask, token: str) -> TestResponse:
    """Ask who the caller of this token is."""
    headers = {"Authorization": f"Bearer {token}"}
    answer: TestResponse = app.test_client().get("/v1/auth/me", headers=headers, buffered=True)
    return answer


def services(app: Flask) -> Any:
    return app.extensions["slipway"]
