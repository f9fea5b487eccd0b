"""Errors of every kind as problem details, without internals."""

from __future__ import annotations

import pytest
from flask import Flask, abort
from werkzeug.exceptions import HTTPException, default_exceptions

from service import errors
from service.error_table import all_errors
from service.errors import SlipwayError
from service.web import problems
from service.web.current import Application, current
from service.web.problems import from_http


@pytest.fixture
def small() -> Flask:
    """An application with nothing but errors."""
    made = Application("small")
    problems.install(made)

    @made.before_request
    def name() -> None:
        current().id = "one"

    @made.get("/status/<int:status>")
    def status(status: int) -> str:
        abort(status)

    @made.get("/error/<code>")
    def error(code: str) -> str:
        raise next(error for error in all_errors() if error.code == code)("What to do.", retry_after=2.1)

    return made


@pytest.mark.parametrize("error", all_errors(), ids=lambda error: error.code)
def test_every_error_has_its_shape(small: Flask, error: type[SlipwayError]) -> None:
    answer = small.test_client().get(f"/error/{error.code}")
    assert answer.status_code == error.status and answer.mimetype == "application/problem+json"
    assert answer.get_json() == {
        "type": f"/docs/errors#{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": "What to do.",
        "code": error.code,
        "instance": f"/error/{error.code}",
        "request_id": "one",
    }
    assert answer.headers["Retry-After"] == "3"  # never earlier than it was said
    assert ("WWW-Authenticate" in answer.headers) == (error.status == 401)


@pytest.mark.parametrize("error", [errors.RateLimited, errors.Overloaded, errors.ModelUnavailable])
def test_retryable_problems_have_retry_after(small: Flask, error: type[SlipwayError]) -> None:
    with small.test_request_context("/x"):
        assert int(problems.problem_response(error()).headers["Retry-After"]) >= 1


@pytest.mark.parametrize("status", sorted(default_exceptions))
def test_framework_errors_are_problems(small: Flask, status: int) -> None:
    answer = small.test_client().get(f"/status/{status}")
    problem = answer.get_json()
    assert answer.status_code == problem["status"] and answer.mimetype == "application/problem+json"
    assert problem["code"] in {error.code for error in all_errors()}
    assert answer.status_code == status or problem["code"] in ("bad_request", "internal_error")


def test_the_frameworks_own_words_are_dropped() -> None:
    class Teapot(HTTPException):
        code, description = 418, "secret of the teapot"

    error = from_http(Teapot())
    assert (error.status, error.code) == (400, "bad_request")
    assert "secret" not in str(error.as_problem())


def test_a_method_that_is_not_taken_says_which_are(small: Flask) -> None:
    answer = small.test_client().post("/error/invalid")
    assert answer.status_code == 405 and set(answer.headers["Allow"].split(", ")) == {
        "GET",
        "HEAD",
        "OPTIONS",
    }
