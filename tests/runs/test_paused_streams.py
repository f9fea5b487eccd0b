"""Streams of stopped agents in a dialect that knows no pause."""

from __future__ import annotations

from service.web.openai.chat_lens import ChatLens
from service.wiring import Services
from tests.llm.wire_server import WireServer
from tests.runs import inside
from tests.runs.scripted import call
from tests.runs.test_client_tools import streamed_calls
from tests.runs.test_stops import meanwhile, only_run, stop


def test_stream_ends_with_a_note(kept_in_each: Services, upstream: WireServer) -> None:
    upstream.script = [meanwhile(lambda: stop(kept_in_each), streamed_calls(call("echo", {"text": "a"})))]
    asked = inside.request("Do it.", cache="bypass", door="chat/stream")
    started, told = kept_in_each.runs.start.stream(inside.ADA, asked, None, "req")
    lens = ChatLens(started.run, counts_usage=False)
    sent = b"".join([lens.encode(events) for events in told]).decode()
    if started.place is not None:
        started.place.give()
    assert only_run(kept_in_each).status == "paused"
    assert "[Paused: this agent is stopped]" in sent and '"error"' not in sent
