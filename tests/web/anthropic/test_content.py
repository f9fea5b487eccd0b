"""Images and documents at the Messages API, by the official SDK: they reach the model as they were sent."""

from __future__ import annotations

from typing import Any

import anthropic
import httpx2
import pytest

from tests.web.anthropic.test_agents import WEATHER, run_of, text_of
from tests.web.made_files import HEADS, block, made, reference, sentence

MIB = 1024 * 1024


def asked(sdk: anthropic.Anthropic, *blocks: Any, agent: str = "assistant") -> Any:
    messages: Any = [{"role": "user", "content": [*blocks, {"type": "text", "text": "What is this?"}]}]
    return sdk.messages.create(model=agent, max_tokens=500, messages=messages)


@pytest.mark.parametrize("agent", ["assistant", "analyst", "support", "writer"])
def test_each_kind_reaches_the_model_as_it_was_sent(
    sdk: anthropic.Anthropic, client: httpx2.Client, agent: str
) -> None:
    files = {media_type: made(media_type) for media_type in HEADS}
    answer = asked(sdk, *(block(*file) for file in files.items()), agent=agent)
    for file in files.items():
        assert agent == "writer" or sentence(*file) in text_of(answer)
    run = run_of(client, answer.id)
    assert run["files"] == [reference(*file) for file in files.items()]
    assert run["input"] == "What is this?"
    assert block("image/gif", files["image/gif"])["source"]["data"] not in str(run)


def test_an_image_alone_is_a_question(sdk: anthropic.Anthropic, client: httpx2.Client) -> None:
    image = made("image/png")
    messages: Any = [{"role": "user", "content": [block("image/png", image)]}]
    with sdk.messages.stream(model="assistant", max_tokens=500, messages=messages) as events:
        answer = events.get_final_message()
    assert sentence("image/png", image) in text_of(answer)
    events_told = client.get(
        f"/v1/runs/run_{answer.id[4:]}/events", headers={"Accept": "application/json"}
    ).json()
    assert block("image/png", image)["source"]["data"] not in str(events_told)


def test_documents_of_text_are_read_and_not_stored_apart(
    sdk: anthropic.Anthropic, client: httpx2.Client
) -> None:
    image = made("image/jpeg")
    text = {"type": "text", "media_type": "text/plain", "data": "The plumber comes on Tuesday."}
    parts = {
        "type": "content",
        "content": [{"type": "text", "text": "The lift is green."}, block("image/jpeg", image)],
    }
    question = {"type": "text", "text": "Plumber? Lift?"}
    content: Any = [
        {"type": "document", "title": "House", "source": text, "citations": {"enabled": True}},
        {"type": "document", "source": parts},
        question,
    ]
    answer = sdk.messages.create(
        model="assistant", max_tokens=500, messages=[{"role": "user", "content": content}]
    )
    assert "Tuesday" in text_of(answer) and "green" in text_of(answer)
    assert run_of(client, answer.id)["files"] == [reference("image/jpeg", image)]


def test_images_in_results_of_the_clients_tools(sdk: anthropic.Anthropic) -> None:
    photo = made("image/webp")
    messages: Any = [{"role": "user", "content": 'Call get_weather for "Paris".'}]
    create: Any = sdk.messages.create
    called = create(model="analyst", max_tokens=500, messages=messages, tools=[WEATHER])
    [call] = [one for one in called.content if one.type == "tool_use"]
    content = [{"type": "text", "text": "21 degrees"}, block("image/webp", photo)]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": content}
    messages += [{"role": "assistant", "content": called.content}, {"role": "user", "content": [result]}]
    answer = create(model="analyst", max_tokens=500, messages=messages, tools=[WEATHER])
    assert sentence("image/webp", photo) in text_of(answer) and "21 degrees" in text_of(answer)


PNG = block("image/png", made("image/png"))


def source(**changes: Any) -> dict[str, Any]:
    return {**PNG, "source": {**PNG["source"], **changes}}


@pytest.mark.parametrize(
    ("bad", "pointer", "words"),
    [
        (source(data="!!!"), "/source/data", "base64"),
        (source(data=""), "/source/data", "empty"),
        (source(media_type="image/jpeg"), "/source/data", "no image/jpeg"),
        (source(media_type="image/tiff"), "/source/media_type", "image/png"),
        (block("image/png", made("image/png", 5 * MIB + 1)), "/source/data", "bytes"),
        ({**PNG, "source": {"type": "url", "url": "https://example.com/a.png"}}, "/source/type", "address"),
        ({**PNG, "source": {"type": "file", "file_id": "file_1"}}, "/source/type", "address"),
        ({**PNG, "type": "document"}, "/source/media_type", "application/pdf"),
        ({**PNG, "type": "video"}, "", "image"),
    ],
    ids=[
        "no base64",
        "empty",
        "other signature",
        "tiff",
        "too large",
        "url",
        "file id",
        "png as pdf",
        "video",
    ],
)
def test_faults_are_told_by_their_place(
    sdk: anthropic.Anthropic, bad: dict[str, Any], pointer: str, words: str
) -> None:
    with pytest.raises(anthropic.BadRequestError) as refused:
        asked(sdk, PNG, bad)
    message = str(refused.value.body)
    assert f"/messages/0/content/1{pointer}" in message and words in message


def test_an_agent_that_passes_on_words_only_takes_no_images(sdk: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="newsroom takes no images"):
        asked(sdk, PNG, agent="newsroom")


def test_the_assistant_sends_no_images(sdk: anthropic.Anthropic) -> None:
    said: Any = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": [PNG]}]
    messages: Any = [*said, {"role": "user", "content": "And?"}]
    with pytest.raises(anthropic.BadRequestError, match="are the user's"):
        sdk.messages.create(model="assistant", max_tokens=99, messages=messages)


def test_more_than_a_hundred_files_are_too_many(sdk: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="more than 100"):
        asked(sdk, *[PNG] * 101)


def test_large_bodies_pass_and_larger_ones_do_not(sdk: anthropic.Anthropic) -> None:
    report = made("application/pdf", 20 * MIB)
    assert sentence("application/pdf", report) in text_of(asked(sdk, block("application/pdf", report)))
    with pytest.raises(anthropic.ContentTooLargeError):
        asked(sdk, block("application/pdf", made("application/pdf", 25 * MIB)))


def test_answers_about_other_images_are_not_mixed_up(sdk: anthropic.Anthropic) -> None:
    one, other = made("image/png"), made("image/png")
    for image in (one, other, one):
        assert sentence("image/png", image) in text_of(asked(sdk, block("image/png", image)))
