"""`flask` without a web server: in this process, over a database of its own and the offline model."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from config import load
from service.app import create_app
from service.cli.common import Progress
from service.store import feedback
from service.store import runs as rows
from service.store.schema import metadata
from service.types import Caller, Run, RunRequest, RunStatus, now_ms
from service.wiring import Services
from tests.conftest import PYTHON, ROOT, Model, RedisServer

Flask_ = Callable[..., Result]


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer, model: Model) -> dict[str, str]:
    home = tmp_path_factory.mktemp("cli")
    return {
        "APP_ENV": "testing",
        "SLIPWAY_HOME": str(home),
        "REDIS_URL": redis_server.url,
        "ANTHROPIC_BASE_URL": model.url,
        "LOG_LEVEL": "ERROR",
    }


@pytest.fixture(scope="module")
def whole(env: dict[str, str]) -> Iterator[Flask]:
    """Not named `app`: pytest-flask would push that one's context around every command."""
    app = create_app(load(env))
    services: Services = app.extensions["slipway"]
    metadata.create_all(services.infra.db.engine)
    services.auth.users.create("root", "root-password", "admin")
    services.auth.users.create("ada", "ada-password")
    yield app
    services.close()


@pytest.fixture
def services(whole: Flask) -> Services:
    found: Services = whole.extensions["slipway"]
    return found


@pytest.fixture
def flask(whole: Flask, model: Model) -> Flask_:
    """Run a command; it must succeed unless `code` says otherwise."""
    model.reset()

    def run(*words: str, code: int = 0, stdin: str | None = None) -> Result:
        result = whole.test_cli_runner().invoke(args=list(words), input=stdin)
        assert result.exit_code == code, result.output + repr(result.exception)
        return result

    return run


def table(result: Result) -> list[list[str]]:
    return [line.split() for line in result.stdout.splitlines()]


def a_run(services: Services, text: str = "What is 17 * 23?", agent: str = "analyst") -> Run:
    """Run a real request of user ada to its end."""
    services.supervisor.start()
    user = services.auth.users.by_name("ada")
    assert user is not None
    asked = RunRequest(agent, ({"role": "user", "content": text},), cache="bypass")
    return services.runs.start.invoke(Caller(user.id, "ada", "user"), asked, None, "req-1").run


def a_dead_run(services: Services) -> str:
    """Create a run that lost three workers."""
    user = services.auth.users.by_name("ada")
    assert user is not None
    asked = RunRequest("assistant", ({"role": "user", "content": "Are you there?"},))
    queued = services.runs.start.queue(Caller(user.id, "ada", "user"), asked, None, "req-2").run
    for _ in range(4):
        with services.infra.db.begin() as tx:  # a worker that is no more
            assert rows.claim(tx, queued.id, "wrk_gone")
    assert services.runs.execution.take_up(queued.id)
    assert services.runs.queries.get(queued.id).error["code"] == "worker_lost"  # type: ignore[index]
    return queued.id


# --- runs -------------------------------------------------------------------------------------------------


def test_runs_are_listed_and_shown(flask: Flask_, services: Services) -> None:
    run = a_run(services)
    assert run.id in [line[0] for line in table(flask("runs", "list", "--status", "succeeded"))]
    listed = json.loads(flask("runs", "list", "--json", "--agent", "analyst", "--limit", "1").stdout)
    assert [(line["run_id"], line["status"], line["door"]) for line in listed] == [
        (run.id, "succeeded", "invoke")
    ]
    shown = flask("runs", "show", run.id).stdout
    assert "391" in shown and "calculator" not in shown.split("STEP")[0].replace(str(run.result), "")
    whole = json.loads(flask("runs", "show", run.id, "--json").stdout)
    assert whole["webhook"] is None and [step["kind"] for step in whole["step_list"]] == [
        "model",
        "tools",
        "model",
    ]


def test_feedback_is_listed(flask: Flask_, services: Services) -> None:
    run = a_run(services)
    assert flask("runs", "feedback", "--agent", "nobody").stdout == "There is none.\n"
    comment = "Wrong,\n\x1b[31mtwice."
    services.infra.db.transact(lambda tx: feedback.give(tx, run.id, -1, comment, now_ms()))
    [line] = json.loads(flask("runs", "feedback", "--json", "--score", "-1").stdout)
    assert (line["run_id"], line["agent"], line["score"], line["comment"]) == (
        run.id,
        "analyst",
        -1,
        comment,
    )
    shown = flask("runs", "feedback").stdout
    assert "Wrong,  [31mtwice." in shown and "\x1b" not in shown


def test_replay_prints_events_as_the_client_saw_them(flask: Flask_, services: Services) -> None:
    run = a_run(services)
    lines = [json.loads(line) for line in flask("runs", "replay", run.id, "--json").stdout.splitlines()]
    assert [line["event"] for line in lines] == [event.name for event in services.runs.queries.so_far(run.id)]
    assert lines[-1]["data"]["output"] == (run.result or {})["output"]
    told = flask("runs", "replay", run.id, "--speed", "1000").stdout
    assert "run.started" in told and "tool.called" in told and told.rstrip().endswith("}")


def test_a_queued_run_is_cancelled(flask: Flask_, services: Services) -> None:
    user = services.auth.users.by_name("ada")
    assert user is not None
    asked = RunRequest("assistant", ({"role": "user", "content": "x"},))
    run = services.runs.start.queue(Caller(user.id, "ada", "user"), asked, None, "req-3").run
    assert flask("runs", "cancel", run.id).stdout == f"{run.id} is cancelled.\n"
    assert flask("runs", "cancel", run.id, code=1).stderr == "Error: This run is cancelled already.\n"


def test_dead_letters_are_listed_and_resumed(flask: Flask_, services: Services) -> None:
    first, second = a_dead_run(services), a_dead_run(services)
    assert {line["run_id"] for line in json.loads(flask("runs", "dead", "--json").stdout)} == {first, second}
    assert flask("runs", "resume", first).stdout == f"{first} is queued.\n"
    queued = services.runs.queries.get(first)
    assert (queued.status, queued.error, queued.result, queued.losses) == (RunStatus.QUEUED, None, None, 0)
    assert flask("runs", "resume", "--all-dead").stdout == f"{second} is queued.\n"
    assert flask("runs", "resume", "--all-dead").stdout == "There are no dead letters.\n"
    for run_id in (first, second):
        assert services.runs.execution.take_up(run_id)
        run = services.runs.queries.get(run_id)
        assert (run.status, run.error) == (RunStatus.SUCCEEDED, None)
        names = [event.name for event in services.runs.queries.so_far(run_id)]
        assert names[-1] == "run.completed" and "run.failed" not in names


def test_only_a_failed_run_can_be_resumed(flask: Flask_, services: Services) -> None:
    run = a_run(services)
    refused = flask("runs", "resume", run.id, code=1).stderr
    assert refused == f"Error: {run.id} is succeeded: only a failed run is sent off again.\n"
    assert flask("runs", "resume", "run_none", code=1).stderr == "Error: There is no run run_none.\n"
    flask("runs", "resume", code=2)


def test_run_of_a_removed_agent_becomes_a_dead_letter(services: Services) -> None:
    user = services.auth.users.by_name("ada")
    assert user is not None
    asked = RunRequest("retired", ({"role": "user", "content": "x"},))
    run = Run("run_retired", user.id, "retired", "1", "task", asked, RunStatus.QUEUED, created_at=now_ms())
    with services.infra.db.begin() as tx:
        rows.insert(tx, run, worker_id=None, wake_at=0)
    for attempt in range(1, 4):  # the supervisor releases it each time
        services.runs.execution.take_up(run.id)
        with services.infra.db.begin() as tx:
            assert rows.abandon(tx, run.id, attempt)
    services.runs.execution.take_up(run.id)
    ended = services.runs.queries.get(run.id)
    assert (ended.status, (ended.error or {})["code"]) == (RunStatus.FAILED, "worker_lost")


# --- users and keys ---------------------------------------------------------------------------------------


def test_users_are_added_listed_and_disabled(flask: Flask_, services: Services) -> None:
    added = flask("users", "add", "grace", "--role", "operator", stdin="grace-password\ngrace-password\n")
    assert added.stdout.splitlines()[-1].startswith("Added operator grace (usr_")
    assert services.auth.users.sign_in("grace", "grace-password", "192.0.2.1").role == "operator"
    flask("users", "password", "grace", "--password-stdin", stdin="another-password\n")
    services.auth.users.sign_in("grace", "another-password", "192.0.2.1")
    flask("users", "disable", "grace")
    listed = {user["username"]: user for user in json.loads(flask("users", "list", "--json").stdout)}
    assert listed["grace"]["disabled"] and not listed["ada"]["disabled"]
    flask("users", "disable", "grace", "--undo")
    assert flask("users", "webhook-secret", "grace").stdout.startswith("whsec_")
    assert ["ada", "user"] in [line[1:3] for line in table(flask("users", "list"))]


def test_byte_order_mark_is_stripped_from_a_password(flask: Flask_, services: Services) -> None:
    flask("users", "add", "marked", "--password-stdin", stdin="\ufeffmarked-password\r\n")
    assert services.auth.users.sign_in("marked", "marked-password", "192.0.2.1").username == "marked"


def test_invalid_input_is_a_one_line_error(flask: Flask_) -> None:
    taken = flask("users", "add", "ada", "--password-stdin", stdin="ada-password\n", code=1)
    assert taken.stderr.startswith("Error: ") and len(taken.stderr.splitlines()) == 1
    short = flask("users", "add", "eve", "--password-stdin", stdin="short\n", code=1)
    assert "/password" in short.stderr
    assert flask("users", "disable", "nobody", code=1).stderr == "Error: There is no user nobody.\n"


def test_keys_are_made_listed_and_revoked(flask: Flask_, services: Services) -> None:
    made = flask("keys", "add", "ada", "laptop", "--scope", "agents:support", "--days", "7")
    key = made.stdout.strip()
    assert services.auth.keys.caller(key).scopes == ("agents:support",)
    [listed] = json.loads(flask("keys", "list", "ada", "--json").stdout)
    assert listed["name"] == "laptop" and "key" not in listed
    flask("keys", "revoke", "ada", listed["id"])
    assert flask("keys", "list", "ada").stdout == "ada has no keys.\n"
    assert "--scope" in flask("keys", "add", "ada", "x", "--scope", "everything", code=2).stderr


# --- agents -----------------------------------------------------------------------------------------------


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


def test_evals_pass_and_fail(env: dict[str, str], whole: Flask, tmp_path: Path) -> None:
    good = {"input": "What is 17 * 23?", "expect": {"contains": ["391"], "tools": ["calculator"]}}
    bad = {"input": "Hello", "expect": {"contains": ["xyzzy"], "tools": ["calculator"], "sources": ["a.md"]}}
    for name, cases in (("sound", [good]), ("picky", [good, bad])):
        folder = tmp_path / "agents" / name
        folder.mkdir(parents=True)
        (folder / "agent.yaml").write_text("description: x\npattern: react\ntools: [calculator]\n")
        (folder / "prompt.md").write_text("x")
        (folder / "evals.yaml").write_text(json.dumps(cases))
    here = create_app(load({**env, "AGENTS_DIR": str(tmp_path / "agents")}))
    passed = here.test_cli_runner().invoke(args=["agents", "eval", "sound"])
    assert (passed.exit_code, passed.stdout) == (0, "pass  sound: What is 17 * 23?\n1 of 1 passed.\n")
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


def test_bundled_evals_pass_with_the_offline_model(whole: Flask) -> None:
    done = whole.test_cli_runner().invoke(args=["agents", "eval"])
    assert done.exit_code == 0, done.stdout
    assert all(f"pass  {name}: " in done.stdout for name in ("analyst", "assistant", "support"))


def test_evals_check_the_category(whole: Flask) -> None:
    told = json.loads(whole.test_cli_runner().invoke(args=["agents", "eval", "support", "--json"]).stdout)
    assert len(told) == 5
    assert not [line for case in told for line in case["missing"] if "category" in line]


def test_every_command_has_help(whole: Flask) -> None:
    for name, group in whole.cli.commands.items():
        commands: dict[str, Any] = getattr(group, "commands", {})
        for command in commands.values():
            assert command.help, f"flask {name} {command.name}"


def test_the_docs_name_every_command(whole: Flask) -> None:
    page = (ROOT / "docs/operator.md").read_text()
    for name in ("runs", "users", "keys", "agents"):
        for command in getattr(whole.cli.commands[name], "commands", {}):
            assert f"`flask {name} {command}" in page


def test_flask_program_needs_no_server(env: dict[str, str], whole: Flask) -> None:
    done = subprocess.run(
        [PYTHON, "-m", "flask", "users", "list"],
        env={**os.environ, **env},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "root" in done.stdout and done.stderr == ""


@pytest.mark.parametrize("number", ["١٢", "１２", "²", "1_0"])
@pytest.mark.parametrize(
    "command",
    [
        ("runs", "list", "--limit"),
        ("runs", "replay", "run_x", "--speed"),
        ("keys", "add", "ada", "laptop", "--days"),
    ],
)
def test_numbers_are_ascii_digits(flask: Flask_, command: tuple[str, ...], number: str) -> None:
    assert command[-1] in flask(*command, number, code=2).stderr


def test_cap_amount_is_ascii_digits(flask: Flask_) -> None:
    refused = flask("budgets", "set", "service", "١٢", code=1)
    assert "is not an amount such as 12.50" in refused.stderr


def test_unmigrated_database_is_reported(env: dict[str, str], tmp_path: Path) -> None:
    app = create_app(load({**env, "SLIPWAY_HOME": str(tmp_path)}))
    try:
        result = app.test_cli_runner().invoke(args=["users", "list"])
    finally:
        app.extensions["slipway"].close()
    assert result.exit_code == 1
    assert "run `alembic upgrade head`" in result.output.splitlines()[-1]


def test_progress_of_a_long_read(capsys: pytest.CaptureFixture[str]) -> None:
    class Chatty(Progress):
        EVERY = 0.0

    progress = Chatty(300)
    for _ in range(4):
        progress.read(100)
    first, second, *rest = capsys.readouterr().err.splitlines()
    assert first.startswith("100 of about 300 rows read, 33 %, about ") and second.startswith(
        "200 of about 300"
    )
    assert [line.split(" in ")[0] for line in rest] == ["300 rows read", "400 rows read"]
    Progress(None).read(100)
    assert capsys.readouterr().err == "", "nothing where it is quick"
