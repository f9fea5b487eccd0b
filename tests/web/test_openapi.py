"""OpenAPI document: complete, valid, and true of the service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import jsonschema_rs
import pytest
from flask import Blueprint, Flask

from service import __version__
from service.errors import Conflict
from service.web.openapi import specification
from tests.conftest import Slipway
from tests.described import OTHER_DIALECT, Description
from tests.made import app_in, close


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    made = app_in(tmp_path_factory.mktemp("openapi"))
    yield specification(made)
    close(made)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    todo: list[Any] = [document]
    found = 0
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            if isinstance(reference := item.get("$ref"), str):
                assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]
                found += 1
            todo += item.values()
        elif isinstance(item, list):
            todo += item
    assert found > 20


def test_every_schema_is_one(document: dict[str, Any]) -> None:
    for name in document["components"]["schemas"]:
        whole = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema_rs.validator_for(whole)


def test_every_operation_documents_its_errors(document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        other = path.startswith(OTHER_DIALECT)
        media = "application/json" if other else "application/problem+json"
        for method, operation in methods.items():
            where, responses = f"{method} {path}", operation["responses"]
            assert "default" in responses and any(
                status[0] in "23" or status == "101" for status in responses
            ), where
            assert ("401" in responses) or "security" not in operation, where
            if "requestBody" in operation:
                assert ({"400", "413"} if other else {"400", "413", "415", "422"}) <= set(responses), where
            for status, answer in responses.items():
                if status.startswith("4"):
                    assert list(answer["content"]) == [media], where
                    assert answer["description"].startswith("`"), where  # the codes


def test_every_parameter_of_a_path_is_there(document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for operation in methods.values():
            named = {item["name"] for item in operation.get("parameters", ()) if item["in"] == "path"}
            assert named == {part[1:-1] for part in path.split("/") if part.startswith("{")}, path


def test_the_version_is_the_services_own(document: dict[str, Any]) -> None:
    assert document["info"]["version"] == __version__


def test_a_route_that_says_nothing_of_itself_is_noticed(tmp_path: Path) -> None:
    made = app_in(tmp_path)
    more = Blueprint("more", __name__)
    more.add_url_rule("/more", "more", lambda: "")
    Flask.register_blueprint(made, more)
    with pytest.raises(KeyError, match="/more"):
        specification(made)
    close(made)


def test_served_document_equals_the_built_one(
    slipway: Slipway, client: httpx2.Client, document: dict[str, Any]
) -> None:
    assert client.get("/openapi.json").json() == document


def answer(status: int, body: bytes, media: str = "application/json") -> dict[str, Any]:
    return {
        "status": status,
        "headers": httpx2.Headers({"Content-Type": media, "X-Request-ID": "x"}),
        "body": body,
    }


@pytest.mark.parametrize(
    "wrong",
    [
        answer(200, b'{"status": 1}'),
        answer(200, b"{}"),
        answer(200, b"{}", "text/html"),
        answer(201, b'{"status": "ok", "version": "1"}'),
        answer(404, b'{"status": 404}', "application/problem+json"),
        answer(500, b"oops", "text/html"),
        {
            **answer(200, b'{"status": "ok", "version": "1"}'),
            "headers": httpx2.Headers({"Content-Type": "application/json"}),
        },
    ],
)
def test_the_tests_client_notices_an_answer_that_was_not_promised(
    document: dict[str, Any], wrong: dict[str, Any]
) -> None:
    description = Description(document)
    description.check("GET", "/health", **answer(200, b'{"status": "ok", "version": "1"}'))
    with pytest.raises(AssertionError):
        description.check("GET", "/health", **wrong)


def test_error_codes_are_in_the_description_of_their_status(document: dict[str, Any]) -> None:
    assert (
        f"`{Conflict.code}`"
        in document["paths"]["/v1/admin/users"]["post"]["responses"]["409"]["description"]
    )


REFUSED = b'{"type": "error", "request_id": "x", "error": {"type": "t", "message": "m", "code": "c"}}'


@pytest.mark.parametrize(
    "wrong",
    [
        answer(404, REFUSED, "application/problem+json"),
        answer(404, b'{"type": "error", "request_id": "x"}'),
        answer(404, REFUSED.replace(b'"x"', b'"y"')),
        answer(200, b'{"type": "message"}'),
    ],
)
def test_the_tests_client_notices_an_answer_that_the_messages_door_did_not_promise(
    document: dict[str, Any], wrong: dict[str, Any]
) -> None:
    description = Description(document)
    description.check("POST", "/v1/messages", **answer(404, REFUSED))
    with pytest.raises(AssertionError):
        description.check("POST", "/v1/messages", **wrong)
