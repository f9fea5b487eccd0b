"""`flask runs`: listed, shown, replayed, cancelled, resumed, forked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from service.cli.runs import _print_event
from service.runs.events.event_stream import stream_key
from service.store import feedback
from service.store import runs as rows
from service.store.database import Database
from service.types import Caller, Event, Run, RunEvent, RunRequest, RunStatus, now_ms
from service.wiring import Services
from tests.cli.house import Flask_, a_run, env, flask, services, table, whole

__all__ = ["env", "flask", "services", "whole"]


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


def test_terminal_escapes_in_texts_are_not_printed(flask: Flask_, services: Services) -> None:
    run = a_run(services, "Tell me of \x1b]0;owned\x07\x9b2J", "assistant")
    said = (run.result or {})["output"]
    assert "\x1b" in said and "\x9b" in said
    for command in (("show", run.id), ("replay", run.id)):
        printed = flask("runs", *command).stdout
        assert "]0;owned" in printed and not {"\x1b", "\x07", "\x9b"} & set(printed)


def test_lines_of_a_text_stay_lines(capsys: pytest.CaptureFixture[str]) -> None:
    _print_event(RunEvent(Event.TEXT_DELTA, {"text": "one\n\ttwo\r\x1b[2J"}, 1))
    assert capsys.readouterr().out == "one\n\ttwo  [2J"


def test_stream_of_a_run_that_is_resumed_at_once_is_kept(
    flask: Flask_, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a task worker that claims the run as soon as it is queued."""
    run_id, transact = a_dead_run(services), Database.transact
    key = stream_key(run_id)

    def then_take_up(db: Database, *args: Any, **options: Any) -> Any:
        monkeypatch.undo()
        done = transact(db, *args, **options)
        assert services.runs.execution.take_up(run_id)
        return done

    assert services.infra.redis_store.client.exists(key)
    monkeypatch.setattr(Database, "transact", then_take_up)
    flask("runs", "resume", run_id)
    [*_, (_, events)] = services.runs.execution.event_streams.read_all(run_id)
    assert events[-1].name is Event.RUN_COMPLETED


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


def test_fork_is_compared_with_its_run(flask: Flask_, services: Services, tmp_path: Path) -> None:
    run = a_run(services)
    said = flask("runs", "fork", run.id, "--from", "3")
    assert "succeeded" in said.stdout and "The answers are the same." in said.stdout
    prompt = tmp_path / "prompt.md"
    prompt.write_text("Answer in one word.")
    told = json.loads(
        flask(
            "runs", "fork", run.id, "--from", "3", "--prompt", str(prompt), "--json", "--user", "ada"
        ).stdout
    )
    assert (told["forked_from"]["run_id"], told["forked_from"]["own_prompt"]) == (run.id, True)
    assert told["difference"]["model_calls"] == {"before": 1, "after": 1}
    assert "no such step" in flask("runs", "fork", run.id, "--from", "9", code=1).stderr
