"""One call that goes wrong fails alone: another on the same connection gets its answer, and no effect is forgotten."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.mcp.connections import MOST_CALLS
from service.tools import ToolResult
from service.wiring import Services
from tests.conftest import RedisServer, wait_until
from tests.llm.wire_server import WireServer
from tests.mcp import house
from tests.mcp.raw import Raw

# What a call ends as: `refused`, it had no effect; `unknown`, it may have had one.
OVER_HTTP = {
    **dict.fromkeys(["s401", "s404", "redirect"], "refused"),
    **dict.fromkeys(
        ["s500", "s502", "drop", "cut", "text", "accepted", "sse_end", "huge", "junk", "bomb"], "unknown"
    ),
    **dict.fromkeys(["lost", "foreign", "hang", "notes", "comments", "retry"], "unknown"),
    **dict.fromkeys(["twice", "other_id", "requests"], "done"),
}
SILENT = (
    "lost",
    "foreign",
    "hang",
    "notes",
    "comments",
    "retry",
    "huge",
)  # no answer comes, however long one waits
OVER_STDIO = {
    **dict.fromkeys(["huge", "lost", "foreign", "hang"], "unknown"),
    **dict.fromkeys(["twice", "other_id", "junk", "requests"], "done"),
}


@pytest.fixture
def raw(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Raw]:
    server = Raw(request.param, tmp_path / "raw")
    with server.running():
        yield server


@pytest.fixture
def wired(tmp_path: Path, redis_server: RedisServer, upstream: WireServer, raw: Raw) -> Iterator[Services]:
    with house.services(tmp_path, redis_server.url, upstream, {"raw": raw.spec()}, "raw.echo") as services:
        yield services


def ended(result: ToolResult) -> str:
    return "done" if result.ok else "unknown" if result.timed_out else "refused"


@pytest.mark.parametrize(
    ("raw", "tool", "end"),
    [
        *(("http", tool, end) for tool, end in OVER_HTTP.items()),
        *(("stdio", tool, end) for tool, end in OVER_STDIO.items()),
    ],
    indirect=["raw"],
)
def test_a_call_that_goes_wrong_fails_alone(wired: Services, raw: Raw, tool: str, end: str) -> None:
    good: list[ToolResult] = []
    assert raw.use(wired, "echo").content == "hi"
    beside = threading.Thread(target=lambda: good.append(raw.use(wired, "slow", text="good")))
    beside.start()
    wait_until((raw.folder / "slow").exists, "the good call")
    bad = raw.use(wired, tool, seconds=2.0 if tool in SILENT else 60.0)
    assert ended(bad) == end, bad
    assert "secret" not in bad.content
    assert raw.use(wired, "echo", text="on").content == "on"  # also beside the good one
    (raw.folder / "go").touch()
    beside.join(30)
    assert [one.content for one in good] == ["good"]
    assert raw.calls().count(tool) == 1


@pytest.mark.parametrize("raw", ["http", "stdio"], indirect=True)
def test_the_first_answer_counts_and_that_of_another_id_does_not(wired: Services, raw: Raw) -> None:
    assert raw.use(wired, "twice").content == "first"
    assert raw.use(wired, "other_id").content == "yours"
    assert raw.use(wired, "echo", text="on").content == "on"


@pytest.mark.parametrize("raw", ["http", "stdio"], indirect=True)
def test_requests_of_a_server_are_refused_and_bounded(wired: Services, raw: Raw) -> None:
    assert raw.use(wired, "requests", seconds=30.0).content == "asked"
    told = wait_until(raw.told, "a refusal")
    assert all(one == {} or one["code"] == -32601 for one in told)
    assert raw.use(wired, "echo", text="on").content == "on"


@pytest.mark.parametrize("raw", ["http"], indirect=True)
def test_no_cookie_is_kept(wired: Services, raw: Raw) -> None:
    assert [raw.use(wired, "cookie").content for _ in range(2)] == ["None", "None"]


@pytest.mark.parametrize("raw", ["stdio"], indirect=True)
def test_a_server_that_hangs_leaves_slots_for_other_tools(wired: Services, raw: Raw) -> None:
    assert raw.use(wired, "echo").ok
    hung = [threading.Thread(target=raw.use, args=(wired, "hang", 6.0)) for _ in range(MOST_CALLS)]
    for each in hung:
        each.start()
    wait_until(lambda: raw.calls().count("hang") == MOST_CALLS, "the calls")
    refused = raw.use(wired, "echo")
    assert refused.content == "raw has 16 calls under way: try later" and not refused.timed_out
    for each in hung:
        each.join(30)
    assert raw.calls().count("echo") == 1


@pytest.mark.parametrize("raw", ["http"], indirect=True)
def test_calls_that_hang_keep_no_connection(
    wired: Services, raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred time-outs later there is still a connection for the next call."""
    monkeypatch.setattr("service.mcp.http.LIMITS.max_connections", 4)
    for _ in range(12):
        assert ended(raw.use(wired, "hang", seconds=0.3)) == "unknown"
    assert raw.use(wired, "echo", text="on").content == "on"


@pytest.mark.parametrize("raw", ["http"], indirect=True)
def test_a_server_that_hangs_at_a_notice_holds_up_no_call(wired: Services, raw: Raw) -> None:
    assert raw.use(wired, "echo").ok
    raw.set(**{"notifications/cancelled": "hang"})
    for _ in range(3):
        assert ended(raw.use(wired, "hang", seconds=0.3)) == "unknown"
    assert raw.use(wired, "echo", seconds=2.0, text="on").content == "on"
