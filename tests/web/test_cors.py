"""CORS: which other sites' pages may call the API, and what they may send and read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import httpx2
import pytest

from service.web.page_cookie import HEADER
from tests.conftest import Model, RedisServer, slipway_server

APP = "https://app.example.com"
OTHERS = [
    "https://app.example.com.evil.test",
    "https://appxexample.com",
    "https://evil.test",
    "http://app.example.com",
    "https://app.example.com:8443",
    "https://sub.app.example.com",
    "null",
]


@pytest.fixture(scope="module")
def api(
    tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer, model: Model
) -> Iterator[httpx2.Client]:
    folder = tmp_path_factory.mktemp("cors")
    settings = {"CORS_ORIGINS": f"{APP}, http://localhost:5173", "WEB_CONCURRENCY": "1"}
    with (
        slipway_server(folder, redis_server.url, model.url, **settings) as server,
        closing(server.client()) as client,
    ):
        yield client


def preflight(
    api: httpx2.Client, origin: str, path: str = "/v1/agents/support/invoke", **asked: str
) -> httpx2.Response:
    wanted = {"method": "POST", "headers": "authorization,content-type,idempotency-key", **asked}
    headers = {f"Access-Control-Request-{name.title()}": value for name, value in wanted.items()}
    return api.options(path, headers={"Origin": origin, **headers})


def allowed(answer: httpx2.Response) -> str | None:
    return answer.headers.get("access-control-allow-origin")


@pytest.mark.parametrize("origin", [APP, "http://localhost:5173"])
def test_allowed_site(api: httpx2.Client, origin: str) -> None:
    answer = preflight(api, origin)
    assert answer.status_code == 200 and allowed(answer) == origin
    assert {"authorization", "content-type", "idempotency-key"} <= {
        name.strip().lower() for name in answer.headers["access-control-allow-headers"].split(",")
    }
    answer = api.get("/v1/agents", headers={"Origin": origin})
    assert answer.status_code == 200 and allowed(answer) == origin and "Origin" in answer.headers["vary"]
    assert {"X-Request-ID", "RateLimit-Remaining", "X-Cost-USD"} <= {
        name.strip() for name in answer.headers["access-control-expose-headers"].split(",")
    }


@pytest.mark.parametrize("origin", OTHERS)
def test_other_sites(api: httpx2.Client, origin: str) -> None:
    assert allowed(preflight(api, origin)) is None
    answer = api.get("/v1/agents", headers={"Origin": origin})
    assert answer.status_code == 200 and allowed(answer) is None


def test_cookies_are_never_allowed(api: httpx2.Client) -> None:
    for answer in (preflight(api, APP), api.get("/v1/agents", headers={"Origin": APP})):
        assert "access-control-allow-credentials" not in answer.headers


def test_the_pages_own_routes_and_header_are_not_for_other_sites(api: httpx2.Client) -> None:
    for path in ("/page/sign-in", "/page/renew", "/page/sign-out", "/", "/metrics"):
        assert allowed(preflight(api, APP, path)) is None
        assert allowed(api.get(path, headers={"Origin": APP})) is None
    named = preflight(api, APP, headers=HEADER).headers.get("access-control-allow-headers", "")
    assert HEADER.lower() not in named.lower()


def test_problems_can_be_read(api: httpx2.Client) -> None:
    for path, status in (("/v1/runs/run_x", 404), ("/v1/nothing", 404), ("/v1/runs?limit=0", 422)):
        answer = api.get(path, headers={"Origin": APP})
        assert (answer.status_code, allowed(answer)) == (status, APP)
    answer = api.get("/v1/agents", headers={"Origin": APP, "Authorization": "Bearer wrong"})
    assert (answer.status_code, allowed(answer)) == (401, APP)


def test_calls_without_an_origin_get_no_header(api: httpx2.Client) -> None:
    assert allowed(api.get("/v1/agents")) is None
