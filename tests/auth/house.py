"""Replicas in miniature: each has its own engine, Redis client and Flask application, over one database and Redis."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from flask import Flask, Response
from flask.testing import FlaskClient

from service.audit.record import Refusals
from service.auth.keys import KeyService
from service.auth.revocation import Revocations
from service.auth.signing_keys import Lifetimes, SigningKeys
from service.auth.tokens import Kind, TokenService
from service.auth.users import User, UserService
from service.errors import InvalidToken
from service.infra.redis import RedisStore
from service.infra.redis_trip import Trip
from service.observe.metrics import Metrics
from service.observe.observer import Observer
from service.observe.tracing import OFF
from service.store.database import Database
from service.types import NANO
from service.usage.budgets import Budgets
from service.web import authentication, hooks, limits, problems
from service.web.admission import allowed_agent, guard
from service.web.authentication import checked_claims
from service.web.current import Application
from service.web.routes import auth
from service.web.schemas import json_response
from tests.tables import create_tables

SECRET = "a-secret-of-the-tests-with-64-characters-so-that-HS512-does-not-complain"
PASSWORD = "correct horse battery"


class Replica:
    """Replica: users, keys, tokens, revocations and limits of one process."""

    def __init__(
        self,
        folder: Path,
        redis_url: str,
        *,
        private_key: str = "",
        secret: str = SECRET,
        lead: float = 0,
        **settings: Any,
    ) -> None:
        self.redis_store = RedisStore(redis_url, max_connections=8)
        self.db = Database(f"sqlite:///{folder}/slipway.db", pool_size=8, patience=2.0)
        create_tables(self.db.engine)
        self.revocations = Revocations(self.redis_store, self.db, access_seconds=900)
        self.refusals = Refusals(self.db)
        self.users = UserService(self.db, self.redis_store, self.revocations, secret, self.refusals)
        self.signing_keys = SigningKeys(self.db, secret, private_key, Lifetimes(lead, 86_400))
        self.tokens = TokenService(
            self.db, self.revocations, self.signing_keys, access_seconds=900, refresh_seconds=86_400
        )
        self.keys = KeyService(self.db, self.redis_store, self.revocations, secret)
        self.metrics = Metrics()
        self.budgets = Budgets(self.db, Observer(self.metrics), day={"user": 5 * NANO, "service": 50 * NANO})
        wanted = {
            "limit_runs": "600/minute",
            "limit_login": "1000/minute",
            "limit_session": "",
            "limit_reads": "6000/minute",
            "limit_writes": "6000/minute",
            "limit_refused": "6000/minute",
            "log_slow_seconds": 10.0,
            "log_hits_share": 1.0,
            **settings,
        }
        self.settings = SimpleNamespace(**wanted)
        rated = SimpleNamespace(id="rated", limits=SimpleNamespace(rate="2/minute"))
        plain = SimpleNamespace(id="plain", limits=SimpleNamespace(rate=None))
        self.catalog = SimpleNamespace(agents={"rated": rated, "plain": plain}, model=lambda _: None)
        self.app = _application(self)

    def client(self, token: str | None = None) -> FlaskClient:
        client = self.app.test_client()
        if token is not None:
            client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"
        return client

    def login(self, username: str = "ada", password: str = PASSWORD) -> dict[str, Any]:
        """Log in; return a token pair."""
        answer = self.client().post("/v1/auth/login", json={"username": username, "password": password})
        assert answer.status_code == 200, answer.text
        pair: dict[str, Any] = answer.get_json()
        return pair

    def claims(self, token: str, kind: Kind = "access") -> dict[str, Any]:
        """Claims of a token that a request carries. Raises `InvalidToken`."""
        with self.app.test_request_context(headers={"Authorization": f"Bearer {token}"}):
            return checked_claims(kind)

    def status(self, token: str) -> int:
        """Return the status of a guarded route for this token."""
        return self.client(token).get("/v1/auth/me").status_code

    def is_revoked(self, family: str) -> bool:
        """Check a log-in, in a round trip of its own."""
        trip = Trip(self.redis_store)
        trip.add(self.revocations.call(family))
        try:
            trip.send()
        except InvalidToken:
            return True
        return False

    def metric(self, name: str) -> float:
        value = self.metrics._registry.get_sample_value(name)
        assert value is not None, name
        return value

    def close(self) -> None:
        self.revocations.close()
        self.redis_store.close()
        self.db.close()


def _application(replica: Replica) -> Flask:
    app = Application("replica")
    app.extensions["slipway"] = SimpleNamespace(
        settings=replica.settings,
        infra=SimpleNamespace(
            db=replica.db, redis_store=replica.redis_store, metrics=replica.metrics, tracer=OFF
        ),
        auth=SimpleNamespace(
            users=replica.users,
            tokens=replica.tokens,
            keys=replica.keys,
            revocations=replica.revocations,
            identities=None,
        ),
        usage=SimpleNamespace(budgets=replica.budgets),
        audit=SimpleNamespace(refusals=replica.refusals),
        agents=replica.catalog,
    )

    hooks.install(app)
    problems.install(app)
    authentication.install(app)
    limits.install(app)
    app.register_blueprint(auth.blueprint)

    @app.post("/v1/agents/<agent>/invoke")
    @guard(counts="run")
    def invoke(agent: str) -> Response:
        return json_response({"agent": allowed_agent(agent).id})

    @app.get("/v1/admin/audit")
    @guard()
    def operators() -> Response:
        return json_response({})

    return app


def post(replica: Replica, path: str, token: str = "", **options: Any) -> Any:
    """POST to a replica; signed in by `token`, if given."""
    return replica.client(token or None).post(path, **options)


def families(replica: Replica, user: User, count: int) -> list[str]:
    """Log in `count` times; return the token families."""
    pairs = [replica.tokens.begin(replica.users.get(user.id)) for _ in range(count)]
    return [replica.claims(pair.access_token)["fam"] for pair in pairs]
