"""Responses that are kept: read, gone on from, made in the background, cancelled, deleted, streamed again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import openai
import pytest

from tests.conftest import Model, Slipway
from tests.jobs.house import TaskWorker
from tests.web.openai.conftest import sdk_of
from tests.web.openai.test_responses import run_of

SLOW = {"first_token_ms": 300, "token_ms": 20}


@pytest.fixture(scope="module", autouse=True)
def worker(slipway: Slipway) -> Iterator[None]:
    """Worker of tasks beside the shared service."""
    env = {**slipway.env, "TASK_CONCURRENCY": "1"}
    with TaskWorker(env, slipway.log.with_name("worker-responses.log")).running():
        yield


@pytest.fixture
def eve(slipway: Slipway, client: httpx2.Client) -> Iterator[openai.OpenAI]:
    """SDK of an admin who is not the user of `sdk`."""
    body = {"username": f"eve{time.monotonic_ns()}", "password": "a-password-of-some-length", "role": "admin"}
    client.post("/v1/admin/users", json=body).raise_for_status()
    login = client.post("/v1/auth/login", json={name: body[name] for name in ("username", "password")}).json()
    with sdk_of(slipway, login["access_token"]) as made:
        yield made


def finished(sdk: openai.OpenAI, response_id: str) -> Any:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        response = sdk.responses.retrieve(response_id)
        if response.status not in ("queued", "in_progress"):
            return response
        time.sleep(0.1)
    raise AssertionError(f"{response_id} is {response.status}")


def numbered(events: Any) -> list[tuple[int, str]]:
    return [(event.sequence_number, event.type) for event in events]


def test_a_conversation_goes_on_also_after_its_beginning_is_deleted(sdk: openai.OpenAI) -> None:
    first = sdk.responses.create(model="assistant", input="My name is Ada.", instructions="Be brief.")
    second = sdk.responses.create(model="assistant", input="Good.", previous_response_id=first.id)
    assert (second.previous_response_id, second.instructions) == (first.id, None)
    sdk.responses.delete(first.id)
    both = [
        sdk.responses.create(model="assistant", input=question, previous_response_id=second.id)
        for question in ("What is my name?", "What is my name, please?")
    ]
    assert ["Ada" in answer.output_text for answer in both] == [True, True]


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_an_answer_from_the_cache_is_kept_too(sdk: openai.OpenAI, model: Model, stream: bool) -> None:
    body: dict[str, Any] = {"model": "assistant", "input": f"What is kept of a cached answer? {stream}"}
    first = sdk.responses.create(**body)
    calls = model.stats()["calls"]
    if stream:
        told = list(sdk.responses.create(**body, stream=True))
        second: Any = told[-1]
        second = second.response
        assert numbered(told) == numbered(sdk.responses.retrieve(second.id, stream=True))
    else:
        second = sdk.responses.create(**body)
    assert model.stats()["calls"] == calls and second.id != first.id
    assert sdk.responses.retrieve(second.id).output_text == first.output_text


def test_a_response_that_is_not_stored_is_found_by_nothing(sdk: openai.OpenAI, client: httpx2.Client) -> None:
    answer: Any = sdk.responses.create(model="assistant", input="Forget this.", store=False)
    assert answer.store is False and run_of(client, answer.id)["status"] == "succeeded"
    nothing_finds(sdk, answer.id)


def nothing_finds(sdk: openai.OpenAI, response_id: str) -> None:
    tries: list[Any] = [
        sdk.responses.retrieve,
        sdk.responses.cancel,
        sdk.responses.delete,
        sdk.responses.input_items.list,
    ]
    for call in tries:
        with pytest.raises(openai.NotFoundError) as missing:
            call(response_id)
        assert missing.value.code == "response_not_found"
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.responses.create(model="assistant", input="And?", previous_response_id=response_id)
    assert (refused.value.code, refused.value.param) == (
        "previous_response_not_found",
        "previous_response_id",
    )


def test_a_response_is_its_users_alone(sdk: openai.OpenAI, eve: openai.OpenAI, client: httpx2.Client) -> None:
    answer = sdk.responses.create(model="assistant", input="Whose is this?")
    nothing_finds(eve, answer.id)
    other = client.post(
        "/v1/agents/assistant/invoke", json={"input": "No response.", "cache": "bypass"}
    ).json()
    nothing_finds(sdk, other["run_id"].replace("run_", "resp_"))
    with pytest.raises(openai.BadRequestError):
        sdk.responses.create(model="analyst", input="Another agent?", previous_response_id=answer.id)


def test_in_the_background_with_the_same_numbers_in_each_stream(sdk: openai.OpenAI, model: Model) -> None:
    model.control(**SLOW)
    begun = sdk.responses.create(model="assistant", input="What goes on behind?", background=True)
    assert (begun.status, begun.background, begun.output) == ("queued", True, [])
    live = list(sdk.responses.retrieve(begun.id, stream=True))
    names = [event.type for event in live]
    assert names[:3] == ["response.created", "response.queued", "response.in_progress"]
    assert names[-1] == "response.completed"
    assert [event.sequence_number for event in live] == list(range(len(live)))
    assert numbered(sdk.responses.retrieve(begun.id, stream=True)) == numbered(live)
    for after in (0, 1, 7, len(live) - 2):
        again = list(sdk.responses.retrieve(begun.id, stream=True, starting_after=after))
        assert again == live[after + 1 :]
    whole = sdk.responses.retrieve(begun.id)
    last: Any = live[-1]
    assert whole.status == "completed" and whole.output_text == last.response.output_text
    assert whole.completed_at == last.response.completed_at and whole.usage == last.response.usage


def test_a_stream_in_the_background_is_left_and_taken_up(sdk: openai.OpenAI, model: Model) -> None:
    model.control(**SLOW)
    seen: list[Any] = []
    with sdk.responses.create(
        model="assistant", input="Shall I leave?", background=True, stream=True
    ) as stream:
        for event in stream:
            seen.append(event)
            if event.type == "response.output_text.delta":
                break
    rest = sdk.responses.retrieve(seen[0].response.id, stream=True, starting_after=seen[-1].sequence_number)
    seen += rest
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    text = "".join(event.delta for event in seen if event.type == "response.output_text.delta")
    assert seen[-1].response.output_text == text


def test_cancelled(sdk: openai.OpenAI, model: Model) -> None:
    model.control(first_token_ms=100, token_ms=400)
    begun = sdk.responses.create(model="assistant", input="Will this be cancelled?", background=True)
    for event in sdk.responses.retrieve(begun.id, stream=True):
        if event.type == "response.output_text.delta":
            break
    assert sdk.responses.cancel(begun.id).status == "cancelled"
    assert sdk.responses.cancel(begun.id).status == "cancelled"
    *_, last = sdk.responses.retrieve(begun.id, stream=True)
    assert last.type == "response.incomplete" and last.response.status == "cancelled"
    with pytest.raises(openai.BadRequestError):
        sdk.responses.create(model="assistant", input="And then?", previous_response_id=begun.id)


def test_deleted_while_it_is_made(sdk: openai.OpenAI, client: httpx2.Client, model: Model) -> None:
    model.control(first_token_ms=100, token_ms=400)
    begun = sdk.responses.create(model="assistant", input="Will this be deleted?", background=True)
    sdk.responses.delete(begun.id)
    nothing_finds(sdk, begun.id)
    assert client.get(f"/v1/runs/run_{begun.id.removeprefix('resp_')}").status_code == 404


def test_of_deletions_at_once_one_is_told(sdk: openai.OpenAI) -> None:
    for number in range(6):
        paths = [f"/v1/responses/{sdk.responses.create(model='assistant', input=f'Twice {number}?').id}"] * 4
        with ThreadPoolExecutor(4) as pool:
            statuses = [answer.status_code for answer in pool.map(sdk_delete(sdk), paths)]
        assert sorted(statuses) == [200, 404, 404, 404]


def sdk_delete(sdk: openai.OpenAI) -> Callable[[str], httpx2.Response]:
    url, headers = str(sdk.base_url).removesuffix("/v1/"), {"Authorization": f"Bearer {sdk.api_key}"}
    return lambda path: httpx2.delete(url + path, headers=headers, timeout=60, trust_env=False)


@pytest.mark.parametrize("more", [{}, {"stream": True}, {"background": True}], ids=str)
def test_the_key_of_a_deleted_response_says_so(client: httpx2.Client, key: str, more: Any) -> None:
    """Neither a model that is not found, nor a second response that nobody would expect."""
    sent = {"Authorization": f"Bearer {key}", "Idempotency-Key": f"deleted {more}".replace(" ", "-")}
    body = {"model": "assistant", "input": f"Once only {more}", **more}
    first = client.post("/v1/responses", json=body, headers=sent)
    assert first.status_code == 200
    run_id = client.get("/v1/runs?limit=1").json()["data"][0]["run_id"]
    response_id = f"resp_{run_id.removeprefix('run_')}"
    assert response_id in first.text and client.delete(f"/v1/responses/{response_id}").status_code == 200
    again = client.post("/v1/responses", json=body, headers=sent)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "run_deleted")
    assert again.headers["x-should-retry"] == "false"


def test_input_items(sdk: openai.OpenAI) -> None:
    items: Any = [
        {"role": "user", "content": "One."},
        {"type": "message", "role": "assistant", "content": "Two."},
        {"role": "user", "content": [{"type": "input_text", "text": "Three."}]},
    ]
    answer = sdk.responses.create(model="assistant", input=items)
    listed: Any = list(sdk.responses.input_items.list(answer.id, order="asc", limit=1))  # by three pages
    assert [(item.role, item.content[0].text) for item in listed] == [
        ("user", "One."),
        ("assistant", "Two."),
        ("user", "Three."),
    ]
    newest: Any = sdk.responses.input_items.list(answer.id)
    assert newest.data[0].content[0].text == "Three." and newest.has_more is False


@pytest.mark.parametrize(
    "query",
    ["stream=yes", "stream=true&starting_after=-1", "stream=true&starting_after=x"],
)
def test_a_bad_query_is_refused(sdk: openai.OpenAI, query: str) -> None:
    answer = sdk.responses.create(model="assistant", input="A bad query?")
    with pytest.raises(openai.BadRequestError):
        sdk.get(f"/responses/{answer.id}?{query}", cast_to=object)
