"""Each field of a body in another API's dialect stands in docs/clients.md, with what becomes of it."""

from __future__ import annotations

import re

import pytest

from service.web.anthropic.agent_body import AgentBody
from service.web.openai.chat_body import ChatBody
from service.web.openai.responses_body import ResponseBody
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "clients.md").read_text()


@pytest.mark.parametrize(
    ("heading", "body"),
    [("OpenAI's SDK", ChatBody), ("OpenAI's Responses", ResponseBody), ("Anthropic's SDK", AgentBody)],
    ids=["chat", "responses", "anthropic"],
)
def test_every_field_is_listed(heading: str, body: type[ChatBody | ResponseBody | AgentBody]) -> None:
    (section,) = re.findall(rf"^## {heading}\n(.*?)^## ", PAGE, re.M | re.S)
    missing = [name for name in body.model_fields if not re.search(rf"`{name}[`.]", section)]
    assert missing == []
