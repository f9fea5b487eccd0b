"""`flask evals`: options, files, exit codes, and cases of real runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml
from flask import Flask

from service.evals.from_runs import CASES
from service.history import message_id
from service.store import feedback
from service.types import Caller, Run, RunRequest, now_ms
from service.wiring import Services
from tests.cli.house import Flask_, a_run, env, flask, services, whole
from tests.conftest import PYTHON, ROOT, wait_until
from tests.evals.house import Evals, app_of, evals_of, write_agent

__all__ = ["env", "flask", "services", "whole"]
CASES_ = [
    {"input": "Summarise: We met on Monday.", "expect": {"contains": ["Monday"]}},
    {"input": "Summarise: All is \x07 well\u2028.", "expect": {"contains": ["xyzzy"]}},
    {"input": "Why?", "expect": {"judge": "It says why."}},
]


@pytest.fixture
def agents(tmp_path: Path) -> Path:
    write_agent(tmp_path / "agents", CASES_)
    return tmp_path / "agents"


@pytest.fixture
def evals(agents: Path) -> Evals:
    """Over an upstream that must not be asked: `--offline` starts its own."""
    return evals_of(
        app_of(agents, {"SLIPWAY_HOME": str(agents.parent), "ANTHROPIC_BASE_URL": "http://127.0.0.1:9"})
    )


def test_offline_model_answers_by_itself_and_files_tell(evals: Evals, agents: Path, tmp_path: Path) -> None:
    junit, told = tmp_path / "junit.xml", tmp_path / "told.json"
    done = evals("run", "--offline", "--junit", junit, "--json", told, code=1)
    assert (
        "1 of 2 cases are as expected; 1 failed" in done.stdout and "the answer has no 'xyzzy'" in done.stdout
    )
    assert "1 not asked: they need a real model" in done.stdout
    [suite] = ET.parse(junit).getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "1", "1")
    failure = next(suite.iter("failure"))
    assert failure.get("message") == "failed: 0 of 1 passed" and "xyzzy" in (failure.text or "")
    content = json.loads(told.read_text())
    assert [case["passed"] for case in content["records"][0]["cases"]] == [1, 0]
    assert content["comparison"]["failed"] is True
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agents", "junit.xml", "told.json"]  # no home


def test_results_are_a_baseline(evals: Evals, agents: Path, tmp_path: Path) -> None:
    """A case that failed before may fail: it is no regression."""
    told = tmp_path / "told.json"
    evals("run", "--offline", "--baseline-out", tmp_path / "base.json")
    evals("run", "--offline", "--json", told, code=1)
    for baseline in ("base.json", "told.json"):
        again = evals("run", "--offline", "--against", tmp_path / baseline)
        assert "2 of 2 cases are as expected" in again.stdout
    (agents / "probe" / "evals.yaml").write_text(
        yaml.safe_dump([{**CASES_[0], "expect": {"contains": ["Tuesday"]}}])
    )
    changed = evals_of(app_of(agents, {"SLIPWAY_HOME": str(tmp_path)}))
    assert "failed" in changed("run", "--offline", "--against", told, code=1).stdout


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--agent", "prob"], "There is no agent prob; did you mean 'probe'?"),
        (["--against", "missing.json"], "missing.json cannot be read: No such file"),
        (["--against", "{dir}/text.json"], "is no file of results of evals"),
        (["--against", "{dir}/other.json"], "has no results of probe"),
        (["--against", "{dir}/real.json"], "no results of probe with the offline model"),
        (["--repeat", "0"], "0 is not in the range"),
        (["--repeat", "1٠"], "is not a whole number"),
        (["--cap", "0"], "A cap of 0 allows no call."),
        (["--cap", "-1"], "negative"),
        (["--jobs", "1000"], "is not in the range"),
    ],
)
def test_wrong_use_is_exit_code_2(evals: Evals, tmp_path: Path, words: list[str], why: str) -> None:
    record = {"agent": "other", "model": "real", "parts": {}, "recorded_at": "", "cases": []}
    for name, agent in (("other", "other"), ("real", "probe")):
        content = {"format": "slipway-evals/1", "records": [{**record, "agent": agent}]}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "text.json").write_text("[" * 10_000)
    said = evals("run", "--offline", *(word.format(dir=tmp_path) for word in words), code=2).stderr
    assert why in " ".join(said.split())


def test_agent_without_evals_and_file_that_cannot_be_written(
    evals: Evals, agents: Path, tmp_path: Path
) -> None:
    said = evals("run", "--offline", "--baseline-out", tmp_path / "none" / "x.json", code=1)
    assert "cannot be written: No such file" in said.stderr
    (agents / "probe" / "evals.yaml").unlink()
    bare = evals_of(app_of(agents, {"SLIPWAY_HOME": str(tmp_path)}))
    assert "probe has no evals.yaml." in bare("run", "--agent", "probe", code=2).stderr
    assert "has an evals.yaml" in bare("run", code=2).stderr


def test_kept_baseline_that_cannot_be_read_is_not_replaced(
    evals: Evals, agents: Path, tmp_path: Path
) -> None:
    base, kept = tmp_path / "base.json", agents / "probe" / "evals.baseline.json"
    evals("run", "--offline", "--baseline-out", base)
    kept.write_text("{")
    said = evals("run", "--offline", "--against", base, "--keep", code=2).stderr
    assert "is no file of results" in " ".join(said.split()) and kept.read_text() == "{"


def test_baseline_is_no_part_of_the_version(agents: Path, tmp_path: Path) -> None:
    first = app_of(agents, {"SLIPWAY_HOME": str(tmp_path)})
    evals_of(first)("run", "--offline", "--keep")
    second = app_of(agents, {"SLIPWAY_HOME": str(tmp_path)})
    versions = [app.extensions["slipway"].agents.agents["probe"].version for app in (first, second)]
    assert versions[0] == versions[1]
    (agents / "probe" / "evals.baseline.json").write_text("{")
    assert "is no file of results" in evals_of(second)("check", code=1).stderr
    (agents / "probe" / "evals.baseline.json").unlink()
    write_agent(agents, [*CASES_, {"input": "More?", "expect": {}}])
    evals_of(app_of(agents, {"SLIPWAY_HOME": str(tmp_path)}))("run", "--offline", "--keep")
    write_agent(agents, [*CASES_, {"input": "Even more?", "expect": {}}])
    stale = evals_of(app_of(agents, {"SLIPWAY_HOME": str(tmp_path)}))("check", code=1).stdout
    assert "probe: evals.yaml has a case without results: 'Even more?'" in stale


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_at_once_and_leaves_nothing(agents: Path, tmp_path: Path, signum: signal.Signals) -> None:
    """Runs under way are cancelled: the model would take a minute for each."""
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    slow = {"OFFLINE_MODEL_FIRST_TOKEN_MS": "60000", "TMPDIR": str(scratch), "AGENTS_DIR": str(agents)}
    environ = {**os.environ, "APP_ENV": "testing", "SLIPWAY_HOME": str(tmp_path), "FLASK_APP": "wsgi", **slow}
    command = [PYTHON, "-m", "flask", "evals", "run", "--offline"]
    child = subprocess.Popen(command, cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: any(scratch.glob("slipway-evals-*/slipway.db")), "the service of the evals")
        wait_until(lambda: "running" in _statuses(scratch), "a run")
        child.send_signal(signum)
        _, said = child.communicate(timeout=30)
    finally:
        child.kill()
    assert (child.returncode, said) == (128 + signum, f"Stopped by {signum.name}.\n")
    assert list(scratch.iterdir()) == []
    shutil.rmtree(scratch)


def _statuses(scratch: Path) -> list[str]:
    import sqlite3
    from contextlib import closing, suppress

    for path in scratch.glob("slipway-evals-*/slipway.db"):
        with suppress(sqlite3.Error), closing(sqlite3.connect(path)) as db:
            return [status for (status,) in db.execute("SELECT status FROM runs")]
    return []


@pytest.fixture
def talk(services: Services) -> Iterator[list[Run]]:
    """Three turns of a session, the second of which was edited and asked again."""
    user = services.auth.users.by_name("ada")
    assert user is not None
    caller = Caller(user.id, "ada", "user")
    session_id = services.sessions.begin_for(caller, "assistant")
    runs: list[Run] = []

    def ask(text: str, **more: Any) -> None:
        request = RunRequest(
            "assistant", ({"role": "user", "content": text},), session_id, cache="bypass", **more
        )
        runs.append(services.runs.start.invoke(caller, request, None, "req-1").run)

    ask("My name is Ada.")
    ask("What is 1 + 1?")
    first = next(iter(services.sessions.transcript(session_id)))
    assert first["run_id"] == runs[0].id
    ask(
        "What # is my name?\n- input: x",
        context='{"plan": "fleet"}',
        parent_message_id=message_id(session_id, 2),
    )
    yield runs


def test_case_of_a_run_has_its_branch_and_no_expectations(
    flask: Flask_, services: Services, talk: list[Run]
) -> None:
    """What the guardrails know of personal data is masked."""
    text = flask("evals", "from-run", talk[-1].id).stdout
    [case] = CASES.validate_python(yaml.safe_load(text))
    assert case.input == "What # is my name?\n- input: x" and case.context == {"plan": "fleet"}
    assert case.turns == ("My name is Ada.",)
    assert f"# Of {talk[-1].id}, " in text and "# Answer: " in text
    masked = a_run(services, "Write to ada.lovelace@example.org, sk-ant-api03-" + "a" * 40)
    [told, kept] = [flask("evals", "from-run", masked.id, *more).stdout for more in ((), ("--unmasked",))]
    assert "lovelace" not in told and "sk-ant" not in told and "ada.lovelace@example.org" in kept
    card = {"card": 4111111111111111, "paid": 12, "ada@example.org": True}
    paid = a_run(services, "Was it paid?", context=json.dumps(card))
    [case] = CASES.validate_python(yaml.safe_load(flask("evals", "from-run", paid.id).stdout))
    assert case.context == {"card": "[CARD]", "paid": 12, "[EMAIL]": True}
    assert "There is no run run_x." in flask("evals", "from-run", "run_x", code=1).stderr


def test_cases_of_feedback_are_appended_once(
    whole: Flask, services: Services, flask: Flask_, tmp_path: Path, env: dict[str, str]
) -> None:
    run = a_run(services, "What is 3 + 4?", "analyst")
    comment = "Wrong!\n- input: evil\n  expect: {}"
    services.infra.db.transact(lambda tx: feedback.give(tx, run.id, -1, comment, now_ms()))
    shutil.copytree(ROOT / "agents" / "analyst", tmp_path / "agents" / "analyst")
    here = app_of(tmp_path / "agents", env)
    run_cli = here.test_cli_runner().invoke
    printed = run_cli(args=["evals", "from-feedback", "--agent", "analyst"]).stdout
    assert "# Feedback -1: Wrong! - input: evil   expect: {}" in printed
    added = run_cli(args=["evals", "from-feedback", "--append", "--agent", "analyst"])
    assert "1 added, 0 there already" in added.stdout, added.output
    again = run_cli(args=["evals", "from-feedback", "--append", "--agent", "analyst"])
    assert "0 added, 1 there already" in again.stdout
    text = (tmp_path / "agents" / "analyst" / "evals.yaml").read_text()
    cases = CASES.validate_python(yaml.safe_load(text))
    before = (ROOT / "agents" / "analyst" / "evals.yaml").read_text()
    assert [case.input for case in cases][-1] == "What is 3 + 4?" and text.startswith(before)
    assert "There is no such feedback." in flask("evals", "from-feedback", "--score", "1").stderr


def test_gate_is_not_passed_by_taking_cases_away(evals: Evals, agents: Path, tmp_path: Path) -> None:
    """Nor by an agent that cannot be run: it would be left out."""
    evals("run", "--offline", "--keep")
    env = {"SLIPWAY_HOME": str(tmp_path)}
    write_agent(agents, CASES_[:1])
    fewer = evals_of(app_of(agents, env))("check", code=1).stdout
    assert "probe: evals.yaml lost a case that has results: 'Summarise: All is" in fewer
    (agents / "probe" / "evals.yaml").write_text("[]")
    shutil.copytree(agents / "probe", agents / "other")
    write_agent(agents, CASES_)
    none = evals_of(app_of(agents, env))("check", code=1).stdout
    assert none == "other: evals.yaml is gone, and results are kept\n"
    shutil.rmtree(agents / "other")
    write_agent(agents, CASES_, spec="description: x\npattern: none\n")
    broken = evals_of(app_of(agents, env))
    for command in ("check", "run"):
        assert "Cannot be run: probe." in broken(command, code=1).stderr
