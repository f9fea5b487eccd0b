"""LangGraph example before a scripted model: streaming, its interrupt as an approval, its checkpoints."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from tests.conftest import wait_until
from tests.examples import house
from tests.examples.house import EXAMPLES, Example, decided, question
from tests.messages_api.asked import Asked, Said
from tests.messages_api.server import MessagesApi

pytestmark = [pytest.mark.examples, pytest.mark.timeout(600)]


def names(events: list[tuple[str, object]]) -> list[str]:
    return [name for name, _ in events]


@pytest.mark.parametrize(
    ("decision", "ok", "output"),
    [("approve", True, "Refunded 39 EUR for order 1001."), ("deny", False, "A person denied this call.")],
)
def test_interrupt_is_a_question_and_its_decision_counts(
    helpdesk: Example, api: MessagesApi, decision: str, ok: bool, output: str
) -> None:
    first = helpdesk.events(**question(api.url))
    assert names(first) == ["tool.called", "tool.finished", "tool.called", "run.waiting"]
    waiting = first[-1][1]
    call = {"call_id": "toolu_0002", "name": "refund", "arguments": {"number": "1001", "eur": 39}}
    assert waiting["approvals"] == [call]
    resume = decided(waiting, decision)
    then = helpdesk.events(**question(api.url, resume=resume))
    assert names(then)[0] == "tool.finished" and then[0][1]["ok"] is ok
    assert "".join(data["text"] for name, data in then if name == "text.delta") == f"Done: {output}"
    assert then[-1] == ("run.completed", {"status": "succeeded", "output": f"Done: {output}"})
    assert (
        helpdesk.events(**question(api.url, resume=resume)) == then[-1:]
    )  # asked again: nothing is done twice
    assert (len(api.requests), api.faults) == (3, [])


def test_question_asked_again_is_the_same_question(helpdesk: Example, api: MessagesApi) -> None:
    first, again = (helpdesk.events(**question(api.url))[-1] for _ in range(2))
    assert first == again and len(api.requests) == 2


def test_killed_process_goes_on_from_its_checkpoint(python_of: Callable[[str], Path], tmp_path: Path) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def slow(asked: Asked) -> Said:
        if asked.results:
            reached.set()
            go_on.wait(30)
        return house.refunds(asked)

    api = MessagesApi(slow)
    folder, python = EXAMPLES / "langgraph", python_of("langgraph")
    try:
        with house.served(folder, python, tmp_path) as helpdesk, ThreadPoolExecutor(1) as pool:
            broken = pool.submit(helpdesk.events, **question(api.url))
            wait_until(reached.is_set, "the second model call")
            helpdesk.child.kill()
            with pytest.raises(httpx2.HTTPError):
                broken.result(30)
        go_on.set()
        with house.served(folder, python, tmp_path) as helpdesk:
            assert names(helpdesk.events(**question(api.url))) == ["tool.called", "run.waiting"]
        assert [len(asked.results) for asked in api.requests] == [0, 1, 1]  # the first call was kept
    finally:
        go_on.set()
        api.close()


def test_turns_of_the_session_are_seen(helpdesk: Example, api: MessagesApi) -> None:
    turns = [("user", "I am Ada."), ("assistant", "Hello, Ada."), ("user", "Refund order 1001.")]
    helpdesk.events(**question(api.url, messages=[{"role": role, "content": said} for role, said in turns]))
    assert [one["role"] for one in api.requests[0].messages] == ["user", "assistant", "user"]


def test_another_token_is_refused(helpdesk: Example, api: MessagesApi) -> None:
    assert helpdesk.post("another", **question(api.url)).status_code == 401
    assert not api.requests
