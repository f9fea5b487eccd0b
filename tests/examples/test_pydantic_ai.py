"""Pydantic AI example before a scripted model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.examples import house
from tests.examples.house import EXAMPLES, Example, decided, question
from tests.messages_api.server import MessagesApi

pytestmark = [pytest.mark.examples, pytest.mark.timeout(600)]


@pytest.fixture
def desk(python_of: Callable[[str], Path], tmp_path: Path) -> Iterator[Example]:
    with house.served(EXAMPLES / "pydantic_ai", python_of("pydantic_ai"), tmp_path) as example:
        yield example


@pytest.mark.parametrize(("decision", "said"), [("approve", "Refunded 39 EUR"), ("deny", "denied")])
def test_tool_that_needs_approval_is_a_question(
    desk: Example, api: MessagesApi, decision: str, said: str
) -> None:
    waiting = desk.post(**question(api.url)).json()
    assert waiting["status"] == "waiting_approval"
    call = {"call_id": "toolu_0002", "name": "refund", "arguments": {"number": "1001", "eur": 39}}
    assert waiting["approvals"] == [call]
    answer = desk.post(**question(api.url, resume=decided(waiting, decision))).json()
    assert answer["status"] == "succeeded" and said in answer["output"]
    assert (len(api.requests), api.faults) == (3, [])


def test_another_token_is_refused(desk: Example, api: MessagesApi) -> None:
    assert desk.post("another", **question(api.url)).status_code == 401
    assert not api.requests
