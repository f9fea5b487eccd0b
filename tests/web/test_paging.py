"""Lists: their query arguments and their pages."""

from __future__ import annotations

import pytest
from flask import Flask

from service.errors import Invalid
from service.web.paging import choice_argument, page, page_arguments

small = Flask("small")


@pytest.mark.parametrize("text", ["0", "101", "-1", "x", "", "1.0", "٣", "²", "9" * 5000])
def test_a_page_that_is_none(text: str) -> None:
    with small.test_request_context("/", query_string={"limit": text}), pytest.raises(Invalid) as refused:
        page_arguments()
    assert refused.value.errors[0]["pointer"] == "/limit"


def test_pages() -> None:
    with small.test_request_context("/?limit=2&cursor=b"):
        assert page_arguments() == (2, "b")
    with small.test_request_context("/"):
        assert page_arguments() == (20, None)
    rows = [{"id": letter} for letter in "abc"]
    assert page(rows, 2) == {"data": rows[:2], "next_cursor": "b"}
    assert page(rows, 3) == {"data": rows, "next_cursor": None}


def test_one_of_some() -> None:
    with small.test_request_context("/?status=x"), pytest.raises(Invalid):
        choice_argument("status", ["a", "b"])
    with small.test_request_context("/?status=a"):
        assert (choice_argument("status", ["a", "b"]), choice_argument("other", ["a"])) == ("a", None)
