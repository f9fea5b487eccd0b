"""`flask agents`: the check and the evals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from flask import Flask

from config import load
from service.app import create_app
from service.ids import new_id
from service.store import runs, users
from service.store.database import Transaction
from service.types import now_ms
from service.wiring import Services
from tests.cli.house import Flask_, env, flask, services, table, whole
from tests.mcp_servers.house import Desk
from tests.runs.queueing import a_task

__all__ = ["env", "flask", "services", "whole"]


def test_bundled_agents_are_listed_without_faults(flask: Flask_) -> None:
    assert {line[0] for line in table(flask("agents", "list"))[1:]} >= {"assistant", "support", "analyst"}
    assert flask("agents", "check").stdout.endswith(" can be run, 0 cannot.\n")


def test_broken_agent_is_reported_with_file_line_and_field(env: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "agents" / "wrong"
    folder.mkdir(parents=True)
    (folder / "agent.yaml").write_text("description: x\npattern: single\nmax_tokens: 0\n")
    (folder / "prompt.md").write_text("x")
    app = create_app(load({**env, "AGENTS_DIR": str(folder.parent)}))
    result = app.test_cli_runner().invoke(args=["agents", "check"])
    assert result.exit_code == 1
    assert result.stdout.startswith(f"{folder}/agent.yaml:3: max_tokens: ")
    [fault] = json.loads(app.test_cli_runner().invoke(args=["agents", "check", "--json"]).stdout)
    assert (fault["agent"], fault["line"], fault["field"]) == ("wrong", 3, "max_tokens")


def test_warning_fails_the_check_but_serves_the_agent(env: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "agents" / "odd"
    folder.mkdir(parents=True)
    (folder / "agent.yaml").write_text("description: x\npattern: react\nmodels: {complex: gpt-4}\n")
    (folder / "prompt.md").write_text("x")
    app = create_app(load({**env, "AGENTS_DIR": str(folder.parent)}))
    result = app.test_cli_runner().invoke(args=["agents", "check"])
    tools, price, summary = result.stdout.splitlines()
    assert tools.startswith(f"{folder}/agent.yaml:2: warning: pattern: react without tools")
    assert price.startswith(f"{folder}/agent.yaml:3: warning: models.complex: 'gpt-4' has no price")
    assert (summary, result.exit_code) == ("1 can be run, 0 cannot; 2 warnings.", 1)
    told = json.loads(app.test_cli_runner().invoke(args=["agents", "check", "--json"]).stdout)
    assert [fault["severity"] for fault in told] == ["warning", "warning"]
    listed = app.test_cli_runner().invoke(args=["agents", "eval", "od"])
    assert listed.stderr == "Error: There is no agent od; did you mean 'odd'?\n"


def test_evals_pass_and_fail(
    env: dict[str, str], whole: Flask, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = {"input": "What is 17 * 23?", "expect": {"contains": ["391"], "tools": ["calculator"]}}
    bad = {"input": "Hello", "expect": {"contains": ["xyzzy"], "tools": ["calculator"], "sources": ["a.md"]}}
    for name, cases in (("sound", [good]), ("picky", [good, bad])):
        folder = tmp_path / "agents" / name
        folder.mkdir(parents=True)
        (folder / "agent.yaml").write_text("description: x\npattern: react\ntools: [calculator]\n")
        (folder / "prompt.md").write_text("x")
        (folder / "evals.yaml").write_text(json.dumps(cases))
    here = create_app(load({**env, "LOG_LEVEL": "INFO", "AGENTS_DIR": str(tmp_path / "agents")}))
    passed = here.test_cli_runner().invoke(args=["agents", "eval", "sound"])
    assert (passed.exit_code, passed.stdout) == (0, "pass  sound: What is 17 * 23?\n1 of 1 passed.\n")
    assert "llm_call" not in caplog.messages  # between the verdicts
    failed = here.test_cli_runner().invoke(args=["agents", "eval", "picky", "--user", "ada"])
    assert failed.exit_code == 1
    assert failed.stdout.splitlines()[1:] == [
        "FAIL  picky: Hello",
        "      the answer has no 'xyzzy'",
        "      the tool calculator was not used",
        "      no source is a.md",
        "1 of 2 passed.",
    ]
    told = here.test_cli_runner().invoke(args=["agents", "eval", "picky", "--json"]).stdout
    first, second = json.loads(told)
    assert (first["missing"], len(second["missing"])) == ([], 3) and first["run_id"].startswith("run_")


def test_real_model_evals_are_skipped_offline(whole: Flask) -> None:
    done = whole.test_cli_runner().invoke(args=["agents", "eval", "assistant"])
    assert "skip  assistant: What is the capital of France?" in done.stdout
    assert done.stdout.endswith(
        "1 of 1 passed; 2 not asked: they need a real model (ANTHROPIC_API_KEY).\n"
    ), done.stdout


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    with Desk(tmp_path).start() as running:
        for name, value in running.env.items():
            monkeypatch.setenv(name, value)
        yield running


def test_bundled_evals_pass_with_the_offline_model(whole: Flask, desk: Desk) -> None:
    done = whole.test_cli_runner().invoke(args=["agents", "eval"])
    assert done.exit_code == 0, done.stdout
    assert all(
        f"pass  {name}: " in done.stdout
        for name in ("analyst", "assistant", "concierge", "research", "support", "writer")
    )


def test_evals_check_the_category(whole: Flask) -> None:
    told = json.loads(whole.test_cli_runner().invoke(args=["agents", "eval", "support", "--json"]).stdout)
    assert len(told) == 5
    assert not [line for case in told for line in case["missing"] if "category" in line]


def test_eval_finds_the_first_admin_behind_many_users(flask: Flask_, services: Services) -> None:
    flask("workspaces", "add", "crowd")
    workspace_id = services.auth.workspaces.named("crowd").id
    row = {"password_hash": "", "disabled": False, "limit_runs": None, "workspace_id": workspace_id}

    def crowd(tx: Transaction) -> None:
        for number in range(101):
            one = {"id": new_id("usr"), "username": f"user{number}", "role": "user", "created_at": now_ms()}
            users.insert(tx, {**row, **one})

    services.infra.db.transact(crowd)
    services.auth.users.create("boss", "boss-password", "admin", workspace_id=workspace_id)
    assert "passed" in flask("agents", "eval", "support", "--workspace", "crowd").stdout


@pytest.mark.parametrize("reason", ["", "x" * 501, "a\0b", "\udcff"])
def test_reason_that_cannot_be_kept_is_refused(flask: Flask_, reason: str) -> None:
    assert "/reason: " in flask("agents", "stop", "support", "--reason", reason, code=1).stderr
    assert table(flask("agents", "list"))[0][-1] == "DESCRIPTION"


def test_agent_of_another_folder_is_stopped_by_its_runs(flask: Flask_, services: Services) -> None:
    unknown = flask("agents", "stop", "elsewhere", "--reason", "Refunds", code=1).stderr
    assert f"There is no agent elsewhere in {services.settings.agents_dir}" in unknown
    assert "AGENTS_DIR" in unknown
    user = services.auth.users.by_name("demo") or services.auth.users.create("demo", "demo-password")
    run = replace(a_task("demo", agent="elsewhere"), user_id=user.id)
    services.infra.db.transact(lambda tx: runs.insert(tx, run, worker_id=None))
    assert flask("agents", "stop", "elsewhere", "--reason", "Refunds").stdout.startswith("Stopped elsewhere")
    assert flask("agents", "release", "elsewhere").stdout == "Released elsewhere.\n"


def test_agent_is_stopped_and_released(flask: Flask_) -> None:
    assert flask("agents", "stop", "support", "--reason", "Refunds").exit_code == 0
    again = flask("agents", "stop", "support", "--reason", "Another reason.")
    assert again.stdout.startswith("support is stopped already: Refunds. `flask agents release support`")
    assert table(flask("agents", "list"))[0][-1] == "STOPPED"
    listed = json.loads(flask("agents", "list", "--json").stdout)
    assert {agent["id"]: agent["stopped"] for agent in listed}["support"] == "Refunds"
    assert flask("agents", "release", "support").stdout == "Released support.\n"
    assert flask("agents", "release", "support").stdout == "support is not stopped.\n"
    assert table(flask("agents", "list"))[0][-1] == "DESCRIPTION"
