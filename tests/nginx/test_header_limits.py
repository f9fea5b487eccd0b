"""Header and request-line limits: equal through nginx and without it, with a problem document beyond."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from http.client import HTTPResponse
from typing import Any

import pytest

from tests.conftest import Slipway
from tests.nginx.edge import Edge

KIB = 1024


@pytest.fixture(scope="module")
def edge(slipway: Slipway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """Nginx in front of one replica, which it knows twice."""
    with Edge(tmp_path_factory.mktemp("limits"), [slipway.port] * 2) as edge:
        yield edge


def ask(port: int, path: str = "/health", *headers: bytes) -> tuple[int, dict[str, Any]]:
    """Status and JSON body of a GET with these header lines."""
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        head = b"\r\n".join(
            [f"GET {path} HTTP/1.1".encode(), b"Host: a", b"Connection: close", *headers, b"", b""]
        )
        connection.sendall(head)
        answer = HTTPResponse(connection)
        answer.begin()
        body: dict[str, Any] = json.load(answer)
    return answer.status, body


def refused(told: tuple[int, dict[str, Any]]) -> tuple[int, str]:
    status, problem = told
    assert problem["status"] == status and problem["request_id"]
    return status, problem["code"]


@pytest.mark.parametrize("size", [8 * KIB, 15 * KIB, 16 * KIB - 100])
def test_header_of_16_kib_is_accepted(edge: Edge, slipway: Slipway, size: int) -> None:
    """Accept long headers, such as tokens with many groups, or a portal's cookies."""
    for port in (edge.port, slipway.port):
        assert ask(port, "/health", b"Cookie: " + b"a" * size)[0] == 200


@pytest.mark.parametrize("size", [16 * KIB, 20 * KIB, 40 * KIB])
def test_longer_header_is_a_problem_document(edge: Edge, slipway: Slipway, size: int) -> None:
    for port in (edge.port, slipway.port):
        assert refused(ask(port, "/health", b"Cookie: " + b"a" * size)) == (431, "headers_too_large")


def test_four_long_headers_are_accepted_and_five_refused(edge: Edge) -> None:
    header = b"Cookie: " + b"a" * (15 * KIB)
    assert ask(edge.port, "/health", *[header] * 3)[0] == 200
    assert refused(ask(edge.port, "/health", *[header] * 5)) == (431, "headers_too_large")


def test_too_many_headers_are_a_problem_document(edge: Edge, slipway: Slipway) -> None:
    for port in (edge.port, slipway.port):
        assert ask(port, "/health", *[b"X-Small: 1"] * 80)[0] == 200
        assert refused(ask(port, "/health", *[b"X-Small: 1"] * 120)) == (431, "headers_too_large")


def test_request_line_of_8_kib_is_accepted(edge: Edge, slipway: Slipway) -> None:
    for port in (edge.port, slipway.port):
        assert ask(port, "/health?q=" + "a" * (8 * KIB - 100))[0] == 200


@pytest.mark.parametrize("size", [8 * KIB, 12 * KIB, 15 * KIB, 17 * KIB, 40 * KIB])
def test_longer_request_line_is_the_same_problem_from_nginx_and_service(
    edge: Edge, slipway: Slipway, size: int
) -> None:
    """Twenty times: an answer may be lost where a server closes with bytes left unread."""
    for _ in range(20):
        for port in (edge.port, slipway.port):
            assert refused(ask(port, "/health?q=" + "a" * size)) == (414, "uri_too_long")
