"""Answers held against what `/openapi.json` promises, so that every test of a door is a test of its description."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx2
import jsonschema_rs

from service.web.doors.not_offered import PATHS

PROBLEM = "application/problem+json"
# Answers have a shape of their own.
OTHER_DIALECT = (
    "/v1/messages",
    "/v1/chat",
    "/v1/responses",
    "/v1/models",
    *(f"/v1/{path}" for path in PATHS),
)
JSON_TYPES = ("application/json", PROBLEM)


class Description:
    """An OpenAPI document that answers can be checked with."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._paths = [(_pattern(path), path) for path in sorted(document["paths"], key=_placeholders)]
        self._validators: dict[str, jsonschema_rs.Validator] = {}

    @classmethod
    def of(cls, url: str) -> Description:
        return cls(httpx2.get(f"{url}/openapi.json", timeout=30, trust_env=False).json())

    def operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """(method, path, operation) of every route that speaks our own dialect."""
        for path, methods in self.document["paths"].items():
            if path.startswith(OTHER_DIALECT):
                continue
            for method, operation in methods.items():
                yield method.upper(), path, operation

    def operation(self, method: str, path: str) -> dict[str, Any] | None:
        for pattern, template in self._paths:
            if pattern.fullmatch(path):
                found: dict[str, Any] | None = self.document["paths"][template].get(method.lower())
                return found
        return None

    def check(self, method: str, path: str, status: int, headers: httpx2.Headers, body: bytes | None) -> None:
        """Raises AssertionError for an answer that was not promised. `body` is None where it streams."""
        where = f"{method} {path} {status}"
        assert headers.get("X-Request-ID"), f"{where} has no request id"
        if method in ("HEAD", "OPTIONS") or status == 304:
            return
        media = headers.get("Content-Type", "").partition(";")[0]
        if media == PROBLEM and body is not None:
            self._problem(where, status, headers, json.loads(body))
        operation = self.operation(method, path)
        if f"{path}/".startswith(tuple(f"{prefix}/" for prefix in OTHER_DIALECT)) and status >= 400:
            self._refusal(where, operation, status, media, headers, body)
            return
        if operation is None:
            assert status in (404, 405, 400), f"{where} is of no route that is described"
            assert media == PROBLEM, f"{where} is {media}"
            return
        promised = operation["responses"].get(str(status))
        if status >= 400 and media == PROBLEM:
            return
        assert promised is not None, f"{where} is not described: {sorted(operation['responses'])}"
        content = promised.get("content", {})
        if status == 204:
            assert not body and not content, f"{where} has a body"
            return
        assert not content or media in content, f"{where} is {media}, described are {sorted(content)}"
        if media in JSON_TYPES and body is not None and content:
            self.fits(where, content[media]["schema"], json.loads(body))

    def fits(self, where: str, schema: dict[str, Any], value: Any) -> None:
        """Raises AssertionError with what does not fit."""
        key = json.dumps(schema, sort_keys=True)
        if key not in self._validators:
            whole = {**schema, "components": self.document["components"]}
            self._validators[key] = jsonschema_rs.validator_for(whole)
        faults = [
            f"{list(fault.instance_path)}: {fault.message}"
            for fault in self._validators[key].iter_errors(value)
        ]
        assert not faults, f"{where}: {faults}"

    def _problem(self, where: str, status: int, headers: httpx2.Headers, problem: Any) -> None:
        self.fits(where, {"$ref": "#/components/schemas/Problem"}, problem)
        assert problem["status"] == status, f"{where} says {problem['status']}"
        replayed = (
            "Idempotency-Replayed" in headers
        )  # the first answer, with the id of the request it was given to
        assert replayed or problem["request_id"] == headers["X-Request-ID"], f"{where} has two request ids"
        if status in (429, 503):
            assert int(headers["Retry-After"]) >= 1, where

    def _refusal(
        self,
        where: str,
        operation: dict[str, Any] | None,
        status: int,
        media: str,
        headers: httpx2.Headers,
        body: bytes | None,
    ) -> None:
        """Raises AssertionError for an error of another dialect that was not promised."""
        assert media == "application/json" and body is not None, f"{where} is {media}"
        if operation is None:
            assert status in (404, 405), f"{where} is of no route that is described"
            return
        promised = operation["responses"].get(str(status), operation["responses"]["default"])
        self.fits(where, promised["content"][media]["schema"], json.loads(body))
        told = json.loads(body)
        request_id = told.get("request_id", told["error"].get("request_id"))
        assert request_id == headers["X-Request-ID"], f"{where} has two request ids"
        if status in (429, 529):
            assert int(headers["Retry-After"]) >= 1, where

    def hook(self, answer: httpx2.Response) -> None:
        """For `event_hooks` of a client: checks every answer as it comes in."""
        media = answer.headers.get("Content-Type", "").partition(";")[0]
        body = answer.read() if media in JSON_TYPES or answer.status_code == 204 else None
        request = answer.request
        self.check(request.method, request.url.path, answer.status_code, answer.headers, body)


def _pattern(path: str) -> re.Pattern[str]:
    escaped = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))
    return re.compile(escaped.replace("/assets/[^/]+", "/assets/.+"))


def _placeholders(path: str) -> int:
    return path.count("{")
