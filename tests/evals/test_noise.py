"""`flask evals run` with a model that obeys the prompt's rules, with 10 % noise: regressions are caught, and no others.

`docs/evals.md` states the repeats; the whole trial is `python -m tests.evals.noise_trial`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.evals.statistics import Rate
from tests.evals.house import Evals, app_of, evals_of, write_agent
from tests.evals.noisy import Noisy, noisy_model
from tests.messages_api.server import MessagesApi

RULES = {"refunds": "30 days", "phone": "weekdays", "plans": "Fleet"}
CASES = [{"input": f"Tell me about {word}.", "expect": {"contains": [text]}} for word, text in RULES.items()]


def prompt(*words: str) -> str:
    return "\n".join(f"RULE {word}: answer with {RULES[word]}" for word in words)


@pytest.fixture(scope="module")
def api() -> Iterator[MessagesApi]:
    with noisy_model(seed=1) as running:
        yield running


@pytest.fixture
def agents(tmp_path: Path) -> Path:
    write_agent(tmp_path / "agents", CASES, prompt=prompt(*RULES))
    return tmp_path / "agents"


@pytest.fixture
def evals(agents: Path, api: MessagesApi) -> Evals:
    return again(agents, api)


def again(agents: Path, api: MessagesApi) -> Evals:
    return evals_of(app_of(agents, {"ANTHROPIC_BASE_URL": api.url, "SLIPWAY_HOME": str(agents.parent)}))


def test_regression_is_caught_and_noise_is_not(
    agents: Path, evals: Evals, api: MessagesApi, tmp_path: Path
) -> None:
    base, told = tmp_path / "base.json", tmp_path / "told.json"
    evals("run", "--baseline-out", base, "--repeat", 10)
    for seed in (2, 3):
        api.script = Noisy(seed)
        same = evals("run", "--against", base, "--repeat", 10, "--junit", tmp_path / "junit.xml")
        assert "3 of 3 cases are as expected" in same.stdout
    (agents / "probe" / "prompt.md").write_text(prompt("refunds", "plans"))
    worse = again(agents, api)("run", "--against", base, "--repeat", 10, "--json", told, code=1)
    assert "regressed  probe: Tell me about phone." in worse.stdout
    verdicts = {one["input"]: one for one in json.loads(told.read_text())["comparison"]["verdicts"]}
    phone = verdicts["Tell me about phone."]
    assert (phone["verdict"], phone["passed"], phone["runs"]) == ("regressed", 0, 30)
    assert Rate(**phone["baseline"]).share >= 0.7 and phone["p"] < 1e-4
    assert [one["verdict"] for one in verdicts.values()].count("regressed") == 1


def test_kept_baseline_gates_a_changed_prompt(agents: Path, evals: Evals, api: MessagesApi) -> None:
    api.script = Noisy(4)
    assert "no baseline is kept" in evals("check").stdout
    evals("run", "--keep", "--repeat", 10)
    kept = agents / "probe" / "evals.baseline.json"
    assert evals("check").stdout == ""
    before = kept.read_text()
    (agents / "probe" / "prompt.md").write_text(prompt("refunds", "phone"))
    changed = again(agents, api)
    assert "probe: prompt.md changed since its evals passed" in changed("check", code=1).stdout
    assert "Nothing is kept" in changed("run", "--keep", "--repeat", 10, code=1).stderr
    assert kept.read_text() == before
    (agents / "probe" / "prompt.md").write_text("Be kind.\n" + prompt(*RULES))
    mended = again(agents, api)
    mended("run", "--keep", "--repeat", 10)
    assert mended("check").stdout == ""
