"""Run of evals: first stage, suspicious cases again, and the report with its verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from service.agents.definitions import AgentDefinition
from service.agents.files import parts_of
from service.evals.asking import Asker
from service.evals.results import CaseRecord, Model, Record, Tally, record_of
from service.evals.verdicts import FALSE_ALARMS, FALSE_ALARMS_TOGETHER, Compared, Verdicts

AT_ONCE = 5  # repeats of a suspicious case before it is looked at again
Verdict = Literal["ok", "new", "failed", "regressed", "skipped", "no verdict"]
FAULTS: frozenset[Verdict] = frozenset({"failed", "regressed", "no verdict"})


@dataclass(frozen=True, slots=True)
class Row:
    """Case with its verdict. `p`: of the comparison with the baseline, None without one."""

    tally: Tally
    baseline: CaseRecord | None
    verdict: Verdict
    p: float | None = None

    @property
    def agent(self) -> str:
        return self.tally.agent.id


@dataclass(frozen=True, slots=True)
class Report:
    """Verdicts of a run. `together`: agents whose cases together pass less often, with p."""

    rows: Sequence[Row]
    parts: Mapping[str, Mapping[str, str]]  # hashes of the agents that were asked, as they began
    together: Mapping[str, float]
    model: Model
    spent: int
    capped: bool

    @property
    def regressed(self) -> bool:
        return bool(self.together) or any(row.verdict == "regressed" for row in self.rows)

    @property
    def complete(self) -> bool:
        return not any(row.verdict == "no verdict" for row in self.rows)

    @property
    def failed(self) -> bool:
        return bool(self.together) or any(row.verdict in FAULTS for row in self.rows)

    def records(self) -> list[Record]:
        """Return the results by agent, without cases that were skipped."""
        found: dict[str, list[CaseRecord]] = {}
        for row in self.rows:
            if row.verdict != "skipped":
                found.setdefault(row.agent, []).append(row.tally.record())
        return [record_of(name, self.model, self.parts[name], cases) for name, cases in found.items()]


class Evaluation:
    """Cases of agents and their baselines, by agent. `offline`: cases that need a real model are skipped."""

    def __init__(
        self,
        agents: Sequence[AgentDefinition],
        baselines: Mapping[str, Record],
        repeat: int,
        *,
        offline: bool,
    ) -> None:
        self._repeat = repeat
        self._parts = {agent.id: parts_of(agent.folder) for agent in agents}
        self._tallies = [Tally(agent, case) for agent in agents for case in agent.evals]
        self._asked = [one for one in self._tallies if not (offline and one.case.needs_real_model)]
        self._baselines = {name: record.by_key for name, record in baselines.items()}

    @property
    def repeats(self) -> int:
        """Return how often cases are asked in the first stage, all together."""
        return sum(self._times(tally) for tally in self._asked)

    def run(self, asker: Asker) -> Verdicts:
        """Ask all cases, then the suspicious ones again."""
        asker.ask(
            [tally for number in range(self._most) for tally in self._asked if number < self._times(tally)]
        )
        verdicts = self._verdicts()
        while not asker.capped and (again := self._suspicious(verdicts)):
            before = {tally: tally.rate for tally in again}
            asker.ask(again)
            for tally in before:
                case = verdicts.cases[tally.key]
                case.again = tally.rate.minus(case.first)
            if any(tally.rate == rate for tally, rate in before.items()):  # the model is away
                break
        return verdicts

    def report(self, verdicts: Verdicts, model: Model, *, spent: int, capped: bool) -> Report:
        regressed = set(verdicts.regressed())
        rows = [self._row(tally, verdicts, tally.key in regressed) for tally in self._tallies]
        return Report(rows, self._parts, verdicts.together(), model, spent, capped)

    def _times(self, tally: Tally) -> int:
        return max(self._repeat, tally.case.repeat)

    @property
    def _most(self) -> int:
        return max((self._times(tally) for tally in self._asked), default=0)

    def _verdicts(self) -> Verdicts:
        cases: dict[str, Compared] = {}
        groups: dict[str, list[str]] = {}
        for tally in self._asked:
            baseline = self._baseline(tally)
            if baseline is not None and baseline.runs and tally.rate.runs:
                cases[tally.key] = Compared(baseline.rate, tally.rate)
                groups.setdefault(tally.agent.id, []).append(tally.key)
        return Verdicts(cases, groups)

    def _baseline(self, tally: Tally) -> CaseRecord | None:
        return self._baselines.get(tally.agent.id, {}).get(tally.case.key)

    def _suspicious(self, verdicts: Verdicts) -> list[Tally]:
        return [
            tally
            for tally in self._asked
            if tally.key in verdicts.cases
            for _ in range(min(AT_ONCE, verdicts.missing(tally.key)))
        ]

    def _row(self, tally: Tally, verdicts: Verdicts, regressed: bool) -> Row:
        baseline, case = self._baseline(tally), verdicts.cases.get(tally.key)
        if tally not in self._asked:
            return Row(tally, None, "skipped")
        if tally.rate.runs < self._times(tally) or (case is not None and verdicts.missing(tally.key)):
            return Row(tally, baseline, "no verdict")
        if case is None:
            return Row(tally, None, "new" if 2 * tally.rate.passed >= tally.rate.runs else "failed")
        return Row(tally, baseline, "regressed" if regressed else "ok", case.p)


def comparison(report: Report) -> dict[str, Any]:
    """Return the verdicts as JSON, beside the results."""
    return {
        "model": report.model,
        "failed": report.failed,
        "capped": report.capped,
        "false_alarm_rate": FALSE_ALARMS + FALSE_ALARMS_TOGETHER,
        "together": {name: round(p, 6) for name, p in report.together.items()},
        "verdicts": [
            {
                "agent": row.agent,
                "key": row.tally.case.key,
                "verdict": row.verdict,
                "p": None if row.p is None else round(row.p, 6),
                "baseline": None if row.baseline is None else row.baseline.rate._asdict(),
                **row.tally.told(),
            }
            for row in report.rows
        ],
    }
