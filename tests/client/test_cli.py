"""The command `slipway`, without a terminal: plain output, JSON, exit codes, and the stored log-in."""

from __future__ import annotations

import io
import json
import secrets
import stat
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from slipway_client import Slipway
from slipway_client.cli.commands import run
from slipway_client.cli.config import LoginFile
from slipway_client.cli.console import bar, clean

from tests import conftest as parts
from tests.client.wire import RUN, event, events, last, problem, scripted, text
from tests.llm.wire_server import whole

Type = Callable[..., tuple[int, str, str]]
ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202ekcatta\r[bold red]x[/bold red] :smile:"


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("SLIPWAY_API_KEY", raising=False)
    monkeypatch.delenv("SLIPWAY_BASE_URL", raising=False)


@pytest.fixture
def slipway(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Type:
    """Type a command: (exit code, stdout, stderr)."""

    def typed(*words: str, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        code = run(words)
        said = capsys.readouterr()
        return code, said.out, said.err

    return typed


@pytest.fixture
def signed_in(slipway: Type, server: parts.Slipway) -> Type:
    code, said, _ = slipway("login", "--url", server.url, "--username", "demo", stdin="demo-password\n")
    assert code == 0 and "as demo (admin)" in said
    return slipway


def test_a_log_in_is_kept_without_the_password_and_for_its_owner_only(
    signed_in: Type, server: parts.Slipway
) -> None:
    path = LoginFile().path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and "demo-password" not in path.read_text()
    assert json.loads(path.read_text())["base_url"] == server.url
    assert signed_in("runs", "list")[0] == 0
    refresh = json.loads(path.read_text())["tokens"]["refresh"]
    assert signed_in("logout")[0] == 0 and not path.exists()
    assert signed_in("runs", "list") == (1, "", "Sign in first: `slipway login`, or set SLIPWAY_API_KEY.\n")
    with server.visitor() as visitor:
        headers = {"Authorization": f"Bearer {refresh}"}
        assert visitor.post("/v1/auth/refresh", headers=headers).status_code == 401


def test_a_key_is_kept_once_it_works(slipway: Type, server: parts.Slipway) -> None:
    with server.client() as admin:
        key = admin.post("/v1/auth/keys", json={"name": "cli"}).json()["key"]
    code, _, error = slipway("--url", server.url, "login", "--api-key", stdin="slp_wrong\n")
    assert code == 1 and "401" in error and not LoginFile().path.exists()
    assert slipway("--url", server.url, "login", "--api-key", stdin=f"{key}\n")[0] == 0
    assert slipway("runs", "list", "--json")[0] == 0


def test_a_stored_token_is_sent_to_no_other_server(signed_in: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(whole({"data": [], "next_cursor": None})) as other:
        assert signed_in("--url", other.url, "runs", "list")[0] == 1
        monkeypatch.setenv("SLIPWAY_BASE_URL", other.url)
        code, _, error = signed_in("runs", "list")
        assert code == 1 and "The log-in is for" in error and other.connections == 0


def test_asking_prints_the_answer_and_nothing_else_on_stdout(signed_in: Type, client: Slipway) -> None:
    question = f"What is 17% of 2340? {secrets.token_hex(4)}"
    code, said, notes = signed_in("ask", "analyst", question)
    assert (code, said) == (0, "17% of 2340 is 397.8.\n")
    assert "calculator" in notes and "succeeded" in notes
    [run_id] = [item.run_id for item in client.runs.list(agent="analyst") if item.input == question]
    assert signed_in("runs", "show", run_id)[1].startswith(run_id)
    code, said, _ = signed_in("runs", "show", run_id, "--json")
    assert json.loads(said)["output"] == "17% of 2340 is 397.8."
    assert signed_in("runs", "follow", run_id)[:2] == (0, "17% of 2340 is 397.8.\n")


def test_a_question_may_come_from_stdin_and_the_result_be_json(signed_in: Type) -> None:
    code, said, _ = signed_in("ask", "assistant", "--json", stdin="Say hello.")
    assert code == 0 and json.loads(said)["input"] == "Say hello."


def test_talking_keeps_the_session(signed_in: Type, client: Slipway) -> None:
    code, said, notes = signed_in("chat", "assistant", stdin="My name is Ada.\n\nWhat did I say?\n")
    assert code == 0 and "My name is Ada" in said
    session = notes.split()[1].rstrip(";")
    assert len(client.sessions.get(session).messages) == 4


def test_lists_are_lines_with_tabs(signed_in: Type, client: Slipway) -> None:
    run_id = client.agents.invoke("assistant", "One\ttwo\nthree.").run_id
    code, said, _ = signed_in("runs", "list", "--limit", "1")
    assert code == 0 and said.split("\t")[0] == run_id and said.endswith("\tOne two three.\n")
    code, said, _ = signed_in("usage", "--by", "agent")
    assert code == 0 and all(len(line.split("\t")) == 5 for line in said.splitlines()) and "█" not in said
    assert {line["agent"] for line in json.loads(signed_in("usage", "--by", "agent", "--json")[1])} >= {
        "assistant"
    }


def test_approvals_are_shown_and_decided(signed_in: Type, client: Slipway) -> None:
    line = secrets.token_hex(6)
    code, said, notes = signed_in("ask", "clerk", f'Call the write_line tool with "{line}".')
    assert (code, said) == (3, "") and "slipway runs follow run_" in notes
    run_id = notes.partition("The run ")[2].split()[0]
    approval = next(each for each in client.approvals.list("pending") if each.run_id == run_id).id
    assert approval in signed_in("approvals", "list")[1]
    assert line in signed_in("approvals", "show", approval)[1]
    code, _, error = signed_in("approvals", "approve", approval)
    assert code == 1 and "--yes" in error
    code, said, _ = signed_in("approvals", "approve", approval, "--yes", "--comment", "Fine.")
    assert code == 0 and said.endswith(f"{approval}: approved\n")
    assert signed_in("runs", "follow", run_id)[0] == 0
    assert json.loads(signed_in("approvals", "show", approval, "--json")[1])["comment"] == "Fine."
    code, _, error = signed_in("approvals", "deny", approval)
    assert code == 1 and "already_decided" in error
    assert signed_in("approvals", "show", "apr_none")[0] == 1


def test_a_run_is_cancelled(signed_in: Type, client: Slipway, model: parts.Model) -> None:
    model.control(first_token_ms=60_000)
    run_id = client.tasks.create("assistant", "Wait.", cache="bypass").run_id
    assert signed_in("runs", "cancel", run_id)[0] == 0
    code, _, error = signed_in("runs", "follow", run_id)
    assert code == 1 and "run_cancelled" in error


def test_schedules_follow_the_contract(slipway: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {
        "id": "sch_1",
        "agent": "support",
        "input": "?",
        "cron": "0 9 * * *",
        "timezone": "UTC",
    }
    made |= {"missed": "skip", "enabled": True, "next_at": "2026-12-01T09:00:00Z"}
    script = [
        whole(made, 201),
        whole({"data": [made], "next_cursor": None}),
        whole({**made, "enabled": False}),
    ]
    with scripted(*script, whole(made), problem(404, "not_found")) as server:
        monkeypatch.setenv("SLIPWAY_API_KEY", "slp_1")
        monkeypatch.setenv("SLIPWAY_BASE_URL", server.url)
        added = slipway("schedules", "add", "support", "0 9 * * *", "How", "much?", "--cap-usd", "0.50")
        assert added[0] == 0 and added[1].startswith("sch_1: next 2026-12-01")
        assert server.requests[0].json == {
            "agent": "support",
            "input": "How much?",
            "cron": "0 9 * * *",
            "cap_usd": "0.50",
        }
        assert slipway("schedules", "list")[1].startswith("sch_1\tsupport\t0 9 * * *\tUTC\t2026-12-01")
        assert slipway("schedules", "pause", "sch_1")[1] == "sch_1: paused\n"
        assert server.requests[2].json == {"enabled": False}
        assert slipway("schedules", "resume", "sch_1")[0] == 0
        code, _, error = slipway("schedules", "list")
        assert code == 1 and "no schedules" in error


def test_schedules_of_a_running_service(signed_in: Type) -> None:
    added = signed_in("schedules", "add", "support", "0 9 * * MON", "What is new?")[1]
    schedule_id = added.partition(":")[0]
    assert signed_in("schedules", "list")[1].startswith(f"{schedule_id}\tsupport\t0 9 * * MON\tUTC\t")
    assert signed_in("schedules", "pause", schedule_id)[1] == f"{schedule_id}: paused\n"
    assert signed_in("schedules", "list")[1].endswith("\tno\n")
    code, _, error = signed_in("schedules", "add", "support", "0 9 * *", "What is new?")
    assert code == 1 and "/cron: must have five fields" in error


def test_notes_of_a_running_service(signed_in: Type) -> None:
    assert signed_in("memory", "set", "language", "Writes", "British", "English.")[1] == "language: noted\n"
    assert signed_in("memory", "set", "size", "Wears 38.", "--end-user", "42")[0] == 0
    listed = signed_in("memory", "list")[1]
    assert listed.startswith("language\tyou\tno\t") and "size" not in listed
    assert signed_in("memory", "list", "--end-user", "42")[1].startswith("size\t")
    assert signed_in("memory", "show", "language")[1] == "Writes British English.\n"
    assert signed_in("memory", "rm", "language")[1] == "language: deleted\n"
    code, _, error = signed_in("memory", "show", "language")
    assert code == 1 and "no such note" in error
    assert signed_in("memory", "rm", "size", "--end-user", "42")[0] == 0
    assert signed_in("memory", "list")[1] == ""


def test_text_of_others_cannot_steer_the_terminal(slipway: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    call = event(2, "tool.called", call_id="c", name=ESCAPES, arguments={"a": ESCAPES})
    done = event(3, "tool.finished", call_id="c", ok=True, ms=1, preview=ESCAPES)
    source = {"title": ESCAPES, "uri": ESCAPES, "quote": ""}
    end = last(5, output=ESCAPES, sources=[source])
    run_ = {**RUN, "input": ESCAPES, "output": ESCAPES, "agent": ESCAPES}
    script = [events(call, done, text(4, ESCAPES), end), whole({"data": [run_], "next_cursor": None})]
    with scripted(*script, whole(run_), problem(402, "budget_exceeded", title=ESCAPES)) as server:
        monkeypatch.setenv("SLIPWAY_API_KEY", "slp_1")
        monkeypatch.setenv("SLIPWAY_BASE_URL", server.url)
        commands = (("ask", "a", "?"), ("runs", "list"), ("runs", "show", "run_1"), ("runs", "list"))
        for words in commands:
            _, said, notes = slipway(*words)
            steering = {
                letter for letter in said + notes if not letter.isprintable() and letter not in "\n\t"
            }
            assert steering == set(), words
            if words != commands[3]:
                assert "[bold red]x[/bold red] :smile:" in said


def test_text_is_cleaned_letter_by_letter() -> None:
    assert clean("a\x1b[31mb\tc\n\u202e\x9b\x00é😀") == "a [31mb c    é😀"
    assert clean("a\tb\n", keep="\n\t") == "a\tb\n"


def test_bars_are_in_proportion() -> None:
    assert (bar(Decimal(1)), bar(Decimal("0.5")), bar(Decimal(0))) == ("█" * 40, "█" * 20, "")
    assert bar(Decimal("0.01")) == "▍"  # 0.4 of a column, to an eighth


@pytest.mark.parametrize("words", [(), ("runs",), ("ask",), ("fly",), ("runs", "list", "--limit", "x")])
def test_wrong_usage_is_told(
    words: tuple[str, ...], slipway: Type, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        slipway(*words)
    assert ended.value.code == 2 and "usage: slipway" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, b"\xff"])
def test_a_prompt_that_cannot_be_read_is_told(
    slipway: Type, tmp_path: Path, content: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIPWAY_API_KEY", "slw_x")
    path = tmp_path / "prompt.md"
    if content is not None:
        path.write_bytes(content)
    code, _, error = slipway("runs", "fork", "run_1", "--from", "1", "--prompt", str(path))
    assert code == 1 and error == f"{path} cannot be read as text.\n"


def test_a_broken_file_is_told(slipway: Type) -> None:
    path = LoginFile().path
    path.parent.mkdir(parents=True)
    path.write_text("{")
    code, _, error = slipway("runs", "list")
    assert code == 1 and "sign in again" in error and "Traceback" not in error
