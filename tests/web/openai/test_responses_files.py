"""Images and PDFs at Responses, by the official SDK: they reach the model as they were sent, also by a chain."""

from __future__ import annotations

from typing import Any

import httpx2
import openai
import pytest

from tests.web.made_files import data_url, made, reference, sentence

IMAGE = made("image/png")


def image(content: bytes, media_type: str = "image/png", **more: Any) -> dict[str, Any]:
    return {"type": "input_image", "image_url": data_url(media_type, content), **more}


def pdf(content: bytes) -> dict[str, Any]:
    return {"type": "input_file", "file_data": data_url("application/pdf", content), "filename": "report.pdf"}


def asked(sdk: openai.OpenAI, *parts: Any, role: str = "user", **more: Any) -> Any:
    items: Any = [{"role": role, "content": [*parts]}]
    if role != "user":
        items.append({"role": "user", "content": "So?"})
    return sdk.responses.create(model="assistant", input=items, **more)


def test_images_and_documents_reach_the_model_as_they_were_sent_also_by_a_chain(
    sdk: openai.OpenAI, client: httpx2.Client
) -> None:
    report = made("application/pdf", 100_000)
    text = {"type": "input_text", "text": "What is this?"}
    answer = asked(sdk, text, image(IMAGE, detail="high"), pdf(report))
    told = (sentence("image/png", IMAGE), sentence("application/pdf", report))
    assert all(one in answer.output_text for one in told)
    run = client.get(f"/v1/runs/run_{answer.id.removeprefix('resp_')}").json()
    assert run["files"] == [reference("image/png", IMAGE), reference("application/pdf", report)]
    [item] = sdk.responses.input_items.list(answer.id).data
    shown: Any = item
    assert [part.type for part in shown.content] == ["input_text", "input_image", "input_file"]
    assert shown.content[1].to_dict().keys() == {"type", "detail"}
    again = sdk.responses.create(model="assistant", input="What was it?", previous_response_id=answer.id)
    sdk.responses.delete(answer.id)
    last = sdk.responses.create(model="assistant", input="What is it?", previous_response_id=again.id)
    assert client.get(f"/v1/runs/run_{last.id.removeprefix('resp_')}").json()["files"] == run["files"]
    assert all(one in last.output_text for one in told)


@pytest.mark.parametrize(
    ("bad", "pointer"),
    [
        ({"type": "input_image", "image_url": "https://example.com/a.png"}, ".image_url"),
        ({"type": "input_image", "file_id": "file-1"}, ".file_id"),
        (image(IMAGE, "image/jpeg"), ".image_url"),
        (image(IMAGE, "application/pdf"), ".image_url"),
        ({"type": "input_file", "file_url": "https://example.com/a.pdf"}, ".file_url"),
        ({"type": "input_file", "file_id": "file-1"}, ".file_id"),
        ({"type": "input_file", "filename": "a.pdf"}, ".file_data"),
        (pdf(IMAGE), ".file_data"),
        ({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}, ".type"),
    ],
)
def test_faults_are_told_by_their_place(sdk: openai.OpenAI, bad: dict[str, Any], pointer: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        asked(sdk, image(IMAGE), bad)
    assert refused.value.param == f"input[0].content[1]{pointer}"


@pytest.mark.parametrize("role", ["system", "developer", "assistant"])
def test_only_the_user_sends_images(sdk: openai.OpenAI, role: str) -> None:
    with pytest.raises(openai.BadRequestError, match="are the user's"):
        asked(sdk, image(IMAGE), role=role)


def test_an_image_as_the_output_of_a_function(sdk: openai.OpenAI) -> None:
    call = {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "call_1", "output": [image(IMAGE)]}
    items: Any = [{"role": "user", "content": "What is there?"}, call, output]
    answer = sdk.responses.create(model="assistant", input=items)
    assert answer.status == "completed"
