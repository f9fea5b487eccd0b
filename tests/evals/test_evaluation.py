"""Stages of a run of evals, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from service.agents.definitions import AgentDefinition
from service.evals.asking import Asker
from service.evals.evaluation import Evaluation
from service.evals.outcome import Outcome
from service.evals.results import CaseRecord, Record, Tally
from tests.evals.house import app_of, write_agent


class Failing(Asker):
    """Each repeat fails; the model is away for the case `away` once it has been asked so often."""

    def __init__(self, away: str, after: int) -> None:
        self.capped = False
        self._away, self._after = away, after

    def ask(self, tallies: Sequence[Tally]) -> None:
        for tally in tallies:
            if tally.case.input != self._away or len(tally.outcomes) < self._after:
                tally.outcomes.append(Outcome(("It is wrong.",)))


def agent_of(folder: Path, *inputs: str) -> AgentDefinition:
    write_agent(folder / "agents", [{"input": one, "expect": {"contains": ["x"]}} for one in inputs])
    app = app_of(folder / "agents", {"SLIPWAY_HOME": str(folder)})
    found: AgentDefinition = app.extensions["slipway"].agents.agents["probe"]
    return found


def test_case_is_judged_though_the_model_is_away_for_another(tmp_path: Path) -> None:
    agent = agent_of(tmp_path, "First?", "Second?")
    cases = tuple(CaseRecord(key=one.key, input=one.input, runs=30, passed=30) for one in agent.evals)
    baseline = Record(agent="probe", model="real", parts={}, recorded_at="", cases=cases)
    evaluation = Evaluation([agent], {"probe": baseline}, 5, offline=False)
    verdicts = evaluation.run(Failing("First?", after=25))
    report = evaluation.report(verdicts, "real", spent=0, capped=False)
    assert [row.verdict for row in report.rows] == ["no verdict", "regressed"]
