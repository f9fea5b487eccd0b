"""The file of servers: every fault has a line, and leaves no server."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.mcp.config import load

TOOL = "tools: {send: {risk: danger}}"


def faults(tmp_path: Path, text: str) -> list[str]:
    (tmp_path / "mcp.yaml").write_text(text)
    found = load(tmp_path / "mcp.yaml")
    assert bool(found.faults) != bool(found.servers)
    return [f"{one.line} {one.field}: {one.detail}" for one in found.faults]


def one(server: str) -> str:
    return f"servers:\n  mail: {{{server}}}\n"


def test_servers_over_http_and_stdio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAIL_URL", "http://127.0.0.1:9999/mcp")
    assert not faults(tmp_path, one(f"url_env: MAIL_URL, {TOOL}"))
    assert load(tmp_path / "mcp.yaml").servers["mail"].address == "http://127.0.0.1:9999/mcp"
    assert not faults(tmp_path, one(f"command: [npx, server], {TOOL}, env: {{HOME: /tmp}}"))


@pytest.mark.parametrize(
    ("rule", "repeatable", "sends"),
    [
        ("{risk: read}", True, True),
        ("{risk: read, idempotent: false, sends: false}", False, False),
        ("{risk: write}", False, True),
        ("{risk: write, idempotent: true}", True, True),
        ("{risk: danger}", False, True),
    ],
)
def test_defaults_of_a_tool(tmp_path: Path, rule: str, repeatable: bool, sends: bool) -> None:
    assert not faults(tmp_path, one(f"url: 'https://a.example', tools: {{get: {rule}}}"))
    tool = load(tmp_path / "mcp.yaml").servers["mail"].tools["get"]
    assert (tool.repeatable, tool.sends) == (repeatable, sends)


def test_no_file_is_no_server(tmp_path: Path) -> None:
    assert load(tmp_path / "mcp.yaml") == (tmp_path / "mcp.yaml", {}, ())


@pytest.mark.parametrize(
    ("server", "fault"),
    [
        (TOOL, "needs either `url` (or `url_env`) or `command`"),
        (f"url: 'http://a', command: [b], {TOOL}", "needs either"),
        (f"url: 'ftp://a/mcp', {TOOL}", "must begin with http:// or https://"),
        (f"url: 'http://me:secret@a/mcp', {TOOL}", "must hold no credential"),
        (f"url_env: NOWHERE_SET, {TOOL}", "NOWHERE_SET is not set"),
        (f"url: 'http://a', env: {{A: b}}, {TOOL}", "only for a server with a `command`"),
        ("url: 'http://a', tools: {}", "at least 1 item"),
        ("url: 'http://a', tools: {send: {}}", "Field required"),
        ("url: 'http://a', tools: {send: {risk: odd}}", "'read', 'write' or 'danger'"),
        ("url: 'http://a', tools: {a__b: {risk: read}}", "no two underscores in a row"),
        (f"url: 'http://a', {TOOL}, timeout: 3", "there is no such field"),
    ],
)
def test_faults(tmp_path: Path, server: str, fault: str) -> None:
    found = faults(tmp_path, one(server))
    assert len(found) == 1 and fault in found[0] and found[0].startswith("2 servers.mail")


@pytest.mark.parametrize(
    "text", ["servers: [", "servers: {Mail: {url: 'http://a', tools: {a: {risk: read}}}}"]
)
def test_unreadable_file(tmp_path: Path, text: str) -> None:
    assert len(faults(tmp_path, text)) == 1


def test_file_that_is_too_long(tmp_path: Path) -> None:
    assert "longer than" in faults(tmp_path, "# " + "x" * 300_000)[0]
