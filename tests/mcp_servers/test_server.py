"""Servers over HTTP: both eras of the protocol, refusals, bounds, start and end."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path
from typing import Any, Literal

import anyio
import httpx2
import pytest
from mcp import Client

from tests.conftest import PYTHON, ROOT
from tests.mcp_servers.house import KEY, Desk, call, text_of

NOTE = {"to": "ada.moreno@harbor.example", "subject": "Hello", "text": "Hi."}
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
ACCEPT = {"accept": "application/json, text/event-stream"}


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
@pytest.mark.parametrize(
    ("server", "names"), [("mail", ["list", "read", "send"]), ("calendar", ["list", "book"])]
)
def test_tools_are_listed_in_both_eras(
    shared_desk: Desk, server: str, names: list[str], mode: Literal["legacy", "2026-07-28"]
) -> None:
    async def listed() -> list[str]:
        async with Client(shared_desk.url(server), mode=mode) as client:
            return [tool.name for tool in (await client.list_tools()).tools]

    assert anyio.run(listed) == names


def test_result_is_json_and_a_refusal_an_error_of_the_tool(shared_desk: Desk) -> None:
    url = shared_desk.url("mail")
    good, bad = call(url, "read", id="mail_offsite"), call(url, "read", id="mail_none")
    assert not good.is_error and json.loads(text_of(good))["subject"] == "Team offsite"
    assert bad.is_error and text_of(bad) == "There is no mail mail_none: list them for their ids."


def test_key_in_meta_makes_a_call_once_over_a_restart(desk: Desk) -> None:
    url = desk.url("mail")
    first = text_of(call(url, "send", "run_1:toolu_1", **NOTE))
    assert desk.child is not None
    desk.child.kill()
    desk.child.wait(30)
    with desk.start():
        assert text_of(call(url, "send", "run_1:toolu_1", **NOTE)) == first and len(desk.outbox()) == 1


def test_unknown_tool_is_an_error_of_the_protocol(shared_desk: Desk) -> None:
    answer = posted(shared_desk, {"name": "delete", "arguments": {}})
    assert answer.json()["error"]["message"] == "There is no such tool"


def test_text_that_is_no_unicode_is_refused(shared_desk: Desk) -> None:
    answer = posted(shared_desk, {"name": "send", "arguments": {**NOTE, "text": "half \ud83d of a pair"}})
    assert 400 <= answer.status_code < 500 and shared_desk.outbox() == []


def posted(desk: Desk, params: dict[str, Any]) -> httpx2.Response:
    """Post a call to the mail server without an MCP client."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    headers = {**ACCEPT, "content-type": "application/json"}
    return httpx2.post(desk.url("mail"), content=body, headers=headers, timeout=10)


@pytest.mark.parametrize("key", [7, ["a"], {"a": 1}])
def test_key_that_is_no_text_is_refused(shared_desk: Desk, key: Any) -> None:
    answer = posted(shared_desk, {"name": "send", "arguments": NOTE, "_meta": {KEY: key}})
    assert answer.json()["result"]["isError"] and shared_desk.outbox() == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "mail:9201"}, 200),  # of a Compose file
        ({"origin": "http://127.0.0.1:8000"}, 200),
        ({"host": "evil.example"}, 421),
        ({"host": "evil.example:9201"}, 421),
        ({"host": "127.0.0.1.evil.example:80"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
    ],
)
def test_pages_of_other_hosts_are_refused(shared_desk: Desk, headers: dict[str, str], status: int) -> None:
    answer = httpx2.post(shared_desk.url("mail"), json=LIST, headers={**ACCEPT, **headers}, timeout=10)
    assert answer.status_code == status


def test_large_body_is_refused(shared_desk: Desk) -> None:
    body = {**LIST, "params": {"x": "y" * 70_000}}
    answer = httpx2.post(shared_desk.url("calendar"), json=body, headers=ACCEPT, timeout=10)
    assert answer.status_code == 413


@pytest.mark.parametrize("body", ["", "[]", "{", "null", '{"jsonrpc": "2.0"}', '"\\ud800"', "[" * 50_000])
def test_malformed_body_is_a_client_error(shared_desk: Desk, body: str) -> None:
    headers = {**ACCEPT, "content-type": "application/json"}
    answer = httpx2.post(shared_desk.url("mail"), content=body, headers=headers, timeout=10)
    assert 400 <= answer.status_code < 500 and "Traceback" not in answer.text


def test_store_that_cannot_be_used_is_an_error_of_the_tool(desk: Desk) -> None:
    (desk.home / "mcp" / "mail.db").write_bytes(b"no database any more" * 100)
    told = call(desk.url("mail"), "send", **NOTE)
    assert told.is_error and "nothing was done" in text_of(told)
    assert not call(desk.url("calendar"), "list").is_error


def test_program_ends_with_sigterm_while_a_client_is_connected(desk: Desk) -> None:
    assert desk.child is not None
    with socket.create_connection(("127.0.0.1", desk.ports["mail"])):
        desk.child.terminate()
        assert desk.child.wait(15) == 0


def started(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a program that is expected to end at once."""
    command = [PYTHON, "-m", "mcp_servers", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)


def test_port_in_use_and_wrong_words_are_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = started("mail", "--mail-port", port, "--home", str(tmp_path))
    assert done.returncode == 1 and done.stderr == (
        f"The mail server cannot start: 127.0.0.1:{port} cannot be listened on: Address already in use.\n"
    )
    assert "must be one of mail, calendar" in started("post").stderr
    assert "0 to 65535" in started("mail", "--mail-port", "x").stderr
    (tmp_path / "mcp").touch()
    done = started("mail", "--mail-port", "0", "--home", str(tmp_path))
    assert done.returncode == 1 and "cannot be used" in done.stderr and "Traceback" not in done.stderr
    (tmp_path / "mcp").unlink()
    (tmp_path / "mcp").mkdir()
    (tmp_path / "mcp" / "mail.db").write_bytes(b"no database" * 100)
    done = started("mail", "--mail-port", "0", "--home", str(tmp_path))
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
