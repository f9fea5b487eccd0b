"""Images and PDFs at Chat Completions, by the official SDK: they reach the model as they were sent."""

from __future__ import annotations

from typing import Any

import httpx2
import openai
import pytest

from tests.web.made_files import data_url, made, reference, sentence

TEXT = {"type": "text", "text": "What is this?"}
IMAGE = made("image/png")


def image(content: bytes, media_type: str = "image/png", **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_url(media_type, content), **more}}


def pdf(content: bytes, **more: Any) -> dict[str, Any]:
    data = {"file_data": data_url("application/pdf", content), "filename": "report.pdf"}
    return {"type": "file", "file": {**data, **more}}


def asked(sdk: openai.OpenAI, *parts: Any, role: str = "user", **more: Any) -> Any:
    messages: Any = [{"role": role, "content": [*parts]}, {"role": "user", "content": "So?"}]
    messages = messages if role != "user" else messages[:1]
    return sdk.chat.completions.create(model="assistant", messages=messages, **more)


def test_images_and_documents_reach_the_model_as_they_were_sent(
    sdk: openai.OpenAI, client: httpx2.Client
) -> None:
    report = made("application/pdf", 100_000)
    answer = asked(sdk, TEXT, image(IMAGE, detail="high"), pdf(report))
    told = answer.choices[0].message.content
    assert sentence("image/png", IMAGE) in told and sentence("application/pdf", report) in told
    run = client.get(f"/v1/runs/run_{answer.id.removeprefix('chatcmpl-')}").json()
    assert run["files"] == [reference("image/png", IMAGE), reference("application/pdf", report)]


def test_an_image_alone_is_a_question_also_by_stream(sdk: openai.OpenAI) -> None:
    photo = made("image/jpeg")
    chunks = asked(sdk, image(photo, "image/jpg"), stream=True)
    told = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert sentence("image/jpeg", photo) in told


@pytest.mark.parametrize(
    ("bad", "pointer"),
    [
        ({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}, ".image_url.url"),
        (image(IMAGE, "image/jpeg"), ".image_url.url"),
        (image(made("image/gif")), ".image_url.url"),
        ({"type": "file", "file": {"file_id": "file-1"}}, ".file.file_id"),
        (pdf(IMAGE), ".file.file_data"),
        ({"type": "file", "file": {"filename": "a.pdf"}}, ".file.file_data"),
        ({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}, ""),
    ],
    ids=["address", "other signature", "gif as png", "file id", "png as pdf", "no data", "audio"],
)
def test_faults_are_told_by_their_place(sdk: openai.OpenAI, bad: dict[str, Any], pointer: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        asked(sdk, image(IMAGE), bad)
    assert f"messages[0].content[1]{pointer}" in refused.value.message


@pytest.mark.parametrize("role", ["system", "developer", "assistant"])
def test_only_the_user_sends_images(sdk: openai.OpenAI, role: str) -> None:
    with pytest.raises(openai.BadRequestError, match="are the user's"):
        asked(sdk, image(IMAGE), role=role)
