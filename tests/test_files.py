"""Images and documents in messages: put aside, listed, and put back as they were."""

from __future__ import annotations

from typing import Any

import pytest

from service import files
from service.files import MAX_FILES, estimated_tokens, put_aside, put_back, references, to_leave_out
from service.text import exact_json
from tests.web.made_files import block, made, reference

PNG, PDF = made("image/png"), made("application/pdf", 50_000)
IMAGE, DOCUMENT = block("image/png", PNG), block("application/pdf", PDF)
TEXT = {"type": "text", "text": "So?"}


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


EVERYWHERE: list[dict[str, Any]] = [
    {"role": "user", "content": "Hello"},
    user(IMAGE, {**DOCUMENT, "title": "Report"}, TEXT),
    user({"type": "tool_result", "tool_use_id": "t", "content": [TEXT, IMAGE]}),
    user(
        {"type": "tool_result", "tool_use_id": "t", "content": "none"},
        {"type": "tool_result", "tool_use_id": "u"},
    ),
    user({"type": "document", "source": {"type": "content", "content": [TEXT, IMAGE]}}),
    user({"type": "document", "source": {"type": "content", "content": "words"}}),
]


def test_what_is_put_aside_comes_back_as_it_was() -> None:
    kept, found = put_aside(EVERYWHERE)
    assert kept[0] is EVERYWHERE[0]
    assert {file.digest: file.size for file in found.values()} == {
        one["digest"]: one["size"] for one in (reference("image/png", PNG), reference("application/pdf", PDF))
    }
    assert IMAGE["source"]["data"] not in str(kept)
    assert [one["type"] for one in references(kept)] == ["image", "document", "image", "image"]
    assert put_back(kept, {digest: file.data for digest, file in found.items()}) == EVERYWHERE


def test_words_stand_for_what_is_left_out() -> None:
    kept, found = put_aside([user(IMAGE, TEXT), user(IMAGE)])
    data = {digest: file.data for digest, file in found.items()}
    first, second = put_back(kept, data, left_out=1)
    assert first["content"][0]["text"] == "[image image/png of 1000 bytes, left out here]"
    assert second == user(IMAGE)
    assert "left out" in str(put_back(kept, {}))


def test_the_newest_that_fit_one_request_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, _ = put_aside([user(IMAGE) for _ in range(MAX_FILES + 2)])
    assert to_leave_out(kept) == 2
    rest = len(exact_json.dumps(kept))
    monkeypatch.setattr(files, "MAX_BYTES", 3 * 1_336 + rest)
    assert to_leave_out(kept) == MAX_FILES - 1
    monkeypatch.setattr(files, "MAX_BYTES", 3 * 1_336 + rest - 1)
    assert to_leave_out(kept) == MAX_FILES
    assert to_leave_out([]) == 0


def test_the_last_is_sent_whatever_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer about a document that the model was not shown would be worse than an error."""
    kept, _ = put_aside([user(IMAGE), user(DOCUMENT, TEXT)])
    monkeypatch.setattr(files, "MAX_BYTES", 10)
    assert to_leave_out(kept) == 1


def test_citations_are_on_all_documents_or_none() -> None:
    kept, found = put_aside([user(DOCUMENT, {**DOCUMENT, "citations": {"enabled": True}})])
    [message] = put_back(kept, {digest: file.data for digest, file in found.items()})
    assert [one["citations"] for one in message["content"]] == [{"enabled": True}] * 2


def test_estimate_counts_each_file() -> None:
    kept, _ = put_aside(EVERYWHERE)
    assert estimated_tokens(kept) == 4 * files.IMAGE_TOKENS
    large, _ = put_aside([user(block("application/pdf", made("application/pdf", 400_000)))])
    assert estimated_tokens(large) == 20_000
