"""Tools of a server that misbehaves: nothing hangs, nothing is lost, nothing runs unasked."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from service.tools.runner import MAX_CONTENT
from service.wiring import Services
from tests.conftest import wait_until
from tests.mcp import evil_server, house
from tests.mcp.house import use


def test_result_is_text(evil: Services) -> None:
    result = use(evil, "evil.echo", text="hello")
    assert result.ok and result.content == "hello"


def test_tools_that_are_not_allowed_are_not_offered(evil: Services) -> None:
    assert "evil.hidden" not in evil.mcp.sources[0].tools(Path())


def test_structured_content_is_given_once(evil: Services) -> None:
    assert use(evil, "evil.structured").content == '{"degrees":21}'


def test_images_are_named_and_left_out(evil: Services) -> None:
    result = use(evil, "evil.orders")
    assert result.content == f"{evil_server.ORDERS}\n[image left out]"


def test_errors_of_a_tool_and_of_the_protocol_are_failures(evil: Services) -> None:
    failed, refused = use(evil, "evil.fail", text="closed today"), use(evil, "evil.refuse")
    assert not failed.ok and failed.content == "closed today"
    assert not refused.ok and refused.content.startswith("evil.refuse was refused by its server")
    assert not failed.timed_out and not refused.timed_out


def test_large_result_is_cut(evil: Services) -> None:
    result = use(evil, "evil.flood")
    assert result.ok and len(result.content) < MAX_CONTENT + 100


def test_malformed_lines_are_dropped(evil: Services) -> None:
    result = use(evil, "evil.malformed")
    assert "\0" not in result.content
    assert use(evil, "evil.echo", text="on").content == "on"


def test_requests_of_a_server_to_the_client_are_refused(evil: Services) -> None:
    assert not use(evil, "evil.ask").ok
    assert use(evil, "evil.echo", text="on").ok


def test_hanging_call_times_out_and_fails_alone(evil: Services) -> None:
    assert use(evil, "evil.echo", text="before").ok
    hung = use(evil, "evil.hang", seconds=1.0)
    assert not hung.ok and hung.timed_out and "may still take effect" in hung.content
    assert use(evil, "evil.echo", text="after").content == "after"


@pytest.mark.parametrize("tool", ["die", "flood_raw"])
def test_broken_connection_leaves_the_call_unknown_and_is_made_again(evil: Services, tool: str) -> None:
    assert use(evil, "evil.echo", text="before").ok
    broken = use(evil, f"evil.{tool}")
    assert not broken.ok and broken.timed_out
    again = wait_until(lambda: use(evil, "evil.echo", text="after").ok, "the server's return")
    assert again


def test_killed_server_is_started_again(evil: Services, folder: Path) -> None:
    assert use(evil, "evil.echo", text="before").ok
    pid = int((folder / "pid").read_text())
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: use(evil, "evil.echo", text="after").ok, "the server's return")
    assert int((folder / "pid").read_text()) != pid


def test_process_ends_with_the_service(evil: Services, folder: Path) -> None:
    assert use(evil, "evil.echo", text="before").ok
    pid = int((folder / "pid").read_text())
    evil.mcp.close()
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the end of the process")
    assert "not reached" in use(evil, "evil.echo", text="after").content


def test_environment_of_a_process_holds_no_settings(evil: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "a secret")
    told = use(evil, "evil.secret").content
    assert "PATH" in told and "SECRET_KEY" not in told


def test_server_that_is_away_keeps_its_tools(evil: Services, folder: Path) -> None:
    tool = evil.mcp.sources[0].tools(Path())["evil.echo"]
    assert "not been reached" in tool.for_model()["description"]
    assert use(evil, "evil.echo", text="before").ok
    evil.mcp.close()
    assert tool.for_model()["description"] == "Say it again."
    assert house.made(folder) == ["echo"]
