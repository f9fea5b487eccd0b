"""Bad input of every kind against every route of a real Gunicorn: never a 500, a hang or a lost request id."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from service.web import page_cookie
from tests.conftest import Model, RedisServer, Slipway, slipway_server
from tests.described import OTHER_DIALECT
from tests.nginx.pair import database
from tests.web.bad import (
    BODIES,
    PATHS,
    QUERIES,
    VALUES,
    fits,
    properties,
    query,
    refused,
    survived,
    url_of,
    with_body,
)

JSON = {"Content-Type": "application/json"}
MIB = 1024 * 1024


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def house(
    request: pytest.FixtureRequest, scratch: Path, redis_server: RedisServer, model: Model
) -> Iterator[Slipway]:
    """A Slipway of its own, which must come out of all this as it went in."""
    folder = scratch / f"bad-{request.param}"
    folder.mkdir()
    model.reset()
    settings = {"LIMIT_RUNS": "1000000/minute", "LIMIT_LOGIN": "1000000/minute", "THREADS": "8"}
    with (
        database(request.param, folder) as url,
        slipway_server(folder, redis_server.url, model.url, DATABASE_URL=url, **settings) as server,
    ):
        workers = server.workers()
        yield server
        assert server.workers() == workers, "a worker died"
        log = server.log.read_text(errors="replace")
        assert "unhandled_error" not in log and "Traceback" not in log, log[
            log.find("unhandled_error") - 300 :
        ][:3000]


@pytest.fixture
def caller(house: Slipway) -> Iterator[httpx2.Client]:
    with closing(house.client()) as signed_in:
        signed_in.timeout = httpx2.Timeout(20)  # a hang fails
        signed_in.headers[page_cookie.HEADER] = "1"
        yield signed_in


def test_bodies_of_a_wrong_type_are_refused(house: Slipway, caller: httpx2.Client) -> None:
    for method, path, _ in with_body(house.description):
        for name, body in BODIES.items():
            problem = refused(
                caller.request(method, url_of(path), content=body, headers=JSON), 400, 422, 404, 413
            )
            if problem["status"] == 400:
                assert problem["code"] == "invalid_json", (path, name)


def test_fields_of_every_wrong_type(house: Slipway, caller: httpx2.Client) -> None:
    for method, path, schema in with_body(house.description):
        for field in properties(schema):
            for value in VALUES:
                body = {field: value}
                answer = caller.request(method, url_of(path), content=json.dumps(body), headers=JSON)
                if fits({**properties(schema)[field], "components": schema["components"]}, value):
                    survived(answer)
                else:
                    refused(answer, 422)


def test_unknown_fields_are_refused(house: Slipway, caller: httpx2.Client) -> None:
    for method, path, _ in with_body(house.description):
        for name in ("nonsense", "", "a/b~c", "__class__", "x" * 5000):
            problem = refused(caller.request(method, url_of(path), json={name: 1}), 422)
            pointer = "/" + name.replace("~", "~0").replace("/", "~1")
            pointer = "" if len(name) > 128 else pointer  # an answer repeats no name that is too long for one
            assert pointer in [fault["pointer"] for fault in problem["errors"]]


def test_a_field_given_twice_counts_once(caller: httpx2.Client) -> None:
    body = b'{"input": 1, "input": "Hello", "cache": "bypass"}'
    answer = caller.post("/v1/agents/assistant/invoke", content=body, headers=JSON)
    assert answer.status_code in (200, 400, 422)


def test_media_types(house: Slipway, caller: httpx2.Client) -> None:
    kinds = (
        "",
        "text/plain",
        "application/xml",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "json",
    )
    for method, path, _ in with_body(house.description):
        for kind in (*kinds, "application/json/x", ";;;=", "é", "application/" + "x" * 3000):
            headers = {"Content-Type": kind.encode("latin-1")}
            refused(caller.request(method, url_of(path), content=b'{"input": "x"}', headers=headers), 415)
        refused(caller.request(method, url_of(path), content=b"{}"), 415)


def test_a_compressed_body_is_not_json(caller: httpx2.Client) -> None:
    headers = {**JSON, "Content-Encoding": "gzip"}
    body = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\xae\x05\x00C\xbf\xa6\xa3\x02\x00\x00\x00"
    refused(caller.post("/v1/agents/assistant/invoke", content=body, headers=headers), 400)


TAKES_DOCUMENTS = {"/v1/admin/knowledge/{agent}"}  # whose bodies are bounded by DOOR_BODY_LIMIT


@pytest.mark.parametrize("size", [MIB + 1, 5 * MIB])
def test_bodies_that_are_too_large(house: Slipway, caller: httpx2.Client, size: int) -> None:
    for method, path, _ in with_body(house.description):
        status = 400 if path in TAKES_DOCUMENTS else 413
        refused(caller.request(method, url_of(path), content=b"x" * size, headers=JSON), status)
    pieces = iter([b"x" * 65_536] * (size // 65_536 + 1))
    refused(caller.post("/v1/agents/assistant/invoke", content=pieces, headers=JSON), 413)


def test_a_body_of_just_the_size(caller: httpx2.Client) -> None:
    frame = b'{"context": {"x": "%b"}, "input": 1}'
    body = frame % (b"x" * (MIB - len(frame) + 2))
    assert len(body) == MIB
    refused(caller.post("/v1/agents/assistant/invoke", content=body, headers=JSON), 422)


def test_ids_in_paths(house: Slipway, caller: httpx2.Client) -> None:
    for method, path, operation in house.description.operations():
        for name in [item["name"] for item in operation.get("parameters", ()) if item["in"] == "path"]:
            for value in PATHS:
                answer = caller.request(method, url_of(path, **{name: value}), json={})
                refused(answer, 400, 404, 405, 422)


def test_query_arguments(house: Slipway, caller: httpx2.Client) -> None:
    for method, path, operation in house.description.operations():
        if method != "GET" or path.endswith("/events"):
            continue
        names = [item["name"] for item in operation.get("parameters", ()) if item["in"] == "query"]
        for name in {*names, "limit", "nonsense"}:
            for value in QUERIES:
                survived(caller.get(f"{url_of(path)}?{name}={query(value)}"))
        survived(caller.get(f"{url_of(path)}?limit=1&limit=x&&=&%ff=%ff&limit"))


def test_a_page_is_of_1_to_100(house: Slipway, caller: httpx2.Client) -> None:
    for method, path, operation in house.description.operations():
        names = [item["name"] for item in operation.get("parameters", ()) if item["in"] == "query"]
        if method == "GET" and "limit" in names:
            for value in ("0", "101", "-1", "x", "1.0", "", "9" * 3900):
                refused(caller.get(url_of(path), params={"limit": value}), 422, 404)


def test_methods_that_a_path_does_not_take(house: Slipway, caller: httpx2.Client) -> None:
    for path, taken in house.description.document["paths"].items():
        if path.startswith(OTHER_DIALECT):
            continue
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"} - {
            name.upper() for name in taken
        }:
            answer = caller.request(method, url_of(path))
            refused(answer, 405)
            assert {name.upper() for name in taken} <= set(answer.headers["Allow"].split(", "))
        assert caller.options(url_of(path)).status_code == 200


@pytest.mark.parametrize(
    "path", ["/nothing", "/v1", "/v1/", "/v1/agents/", "/v1//agents", "/.env", "/%2e%2e/", "/v1/agents/a/b/c"]
)
def test_paths_that_are_not_there(caller: httpx2.Client, path: str) -> None:
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW", "OPTIONS"):
        assert refused(caller.request(method, path), 404)["code"] == "not_found"
    answer = caller.head(path)
    assert (answer.status_code, answer.text) == (404, "") and answer.headers["X-Request-ID"]


def test_authorization_of_many_shapes(house: Slipway) -> None:
    shapes = ("", "Bearer", "bearer\tx", "Basic ZGVtbzpkZW1v", "Digest x", "Bearer a b", "bearer null")
    longer = (
        "Bearer " + "x" * 7000,
        "Bearer slp_",
        "Bearer slp_" + "é" * 10,
        "Bearer ..",
        "Bearer eyJhbGciOiJub25lIn0.e30.",
    )
    with closing(house.visitor()) as visitor:
        for method, path, operation in house.description.operations():
            if "security" not in operation:
                continue
            for value in (*shapes, *longer):
                answer = visitor.request(
                    method, url_of(path), headers={"Authorization": value.encode("latin-1")}
                )
                refused(answer, 401)
                assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            for key in ("", "x", "slp_x", "é"):
                refused(
                    visitor.request(method, url_of(path), headers={"X-Api-Key": key.encode("latin-1")}), 401
                )


def test_idempotency_keys(house: Slipway, caller: httpx2.Client) -> None:
    for method, path, operation in house.description.operations():
        if "Idempotency-Key" not in [item["name"] for item in operation.get("parameters", ())]:
            continue
        for key in (b"", b"a b", b"x" * 256, b"\xff", "ü".encode(), b"\x7f"):
            headers = {"Idempotency-Key": key}
            body: dict[str, Any] = {"input": "x"} if "agents" in path else {}
            refused(caller.request(method, url_of(path), json=body, headers=headers), 400, 404, 422)


def test_request_ids_that_are_not_one(caller: httpx2.Client) -> None:
    for sent in (b"", b"a b", b"x" * 129, b"\xff", b"a/b", b"<script>", b"a,b", b"{}"):
        answer = caller.get("/v1/nothing", headers={"X-Request-ID": sent})
        own = refused(answer, 404)["request_id"]
        assert own.isalnum() and own.encode() != sent
    assert (
        caller.get("/v1/nothing", headers={"X-Request-ID": "A-z_0.9" * 18}).headers["X-Request-ID"]
        == "A-z_0.9" * 18
    )


def test_where_a_stream_is_to_go_on(caller: httpx2.Client) -> None:
    run_id = caller.post("/v1/agents/assistant/invoke", json={"input": "Hello"}).json()["run_id"]
    for sent in (
        b"",
        b"x",
        b":",
        b"run:1",
        f"{run_id}:-1".encode(),
        f"{run_id}:x".encode(),
        f"{run_id}:{'9' * 15}".encode(),
        b"\xff:1",
        b"9" * 6000,
    ):
        headers = {"Last-Event-ID": sent, "Accept": "application/json"}
        answer = caller.get(f"/v1/runs/{run_id}/events", headers=headers)
        survived(answer)
    beyond = {"Last-Event-ID": f"{run_id}:{'9' * 9}"}
    assert caller.get(f"/v1/runs/{run_id}/events", headers=beyond).status_code == 200


def test_headers_that_mean_nothing(house: Slipway, caller: httpx2.Client) -> None:
    odd = {
        "Accept": "text/html;q=x, */*;;",
        "Accept-Encoding": "%%%",
        "Accept-Language": "\x7f",
        "Cookie": "=;;;=\xff; a",
        "Range": "bytes=9-1,x",
        "If-None-Match": '"' + "x" * 2000,
        "If-Modified-Since": "yesterday",
        "X-Forwarded-For": "1.2.3.4, ' OR 1=1, [::",
        "X-Forwarded-Proto": "gopher",
        "Forwarded": "for=;;",
        "Host": "a b:c:d",
        "Origin": "null",
        "Connection": "upgrade",
        "Upgrade": "websocket",
        "Content-Length": "0",
    }
    for method, path, _ in house.description.operations():
        if method == "GET":
            for name, value in odd.items():
                survived(caller.get(url_of(path), headers={name: value.encode("latin-1")}))
