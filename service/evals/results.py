"""Results of evals, and the file format that baselines have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.agents.definitions import AgentDefinition
from service.agents.eval_spec import EvalCase
from service.agents.files import BASELINE
from service.evals.outcome import Outcome
from service.evals.statistics import Rate
from service.evals.whole_file import write_whole
from service.types import NANO, now_ms, rfc3339, usd

FORMAT: Literal["slipway-evals/1"] = "slipway-evals/1"
MAX_BYTES = 32 * 1024 * 1024  # of a file of results
MOST_RUNS = 1_000  # repeats of a case in a file: the tests' numbers stay within floats
MAX_FAILURES = 5  # of a case that are told
MAX_TOLD = 2_000  # characters of a failed answer
Model = Literal["offline", "real"]


class BadBaseline(Exception):
    """Raised for a file that cannot be read as results. The message names it."""


class Stored(BaseModel):
    """Base of a results file: fields of a later release are left out."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class CaseRecord(Stored):
    """Repeats of a case. Means are over all that count."""

    key: str
    input: str
    runs: int = Field(ge=0, le=MOST_RUNS)
    passed: int = Field(ge=0, le=MOST_RUNS)
    cost_usd: Decimal = Decimal(0)
    seconds: float = 0.0
    steps: float = 0.0

    @property
    def rate(self) -> Rate:
        return Rate(min(self.passed, self.runs), self.runs)


class Record(Stored):
    """Results of an agent in one version. `parts`: hashes of what decides about its answers."""

    agent: str
    model: Model
    parts: dict[str, str]
    recorded_at: str
    cases: tuple[CaseRecord, ...]

    @property
    def by_key(self) -> dict[str, CaseRecord]:
        return {case.key: case for case in self.cases}


class Results(Stored):
    format: Literal["slipway-evals/1"]
    records: tuple[Record, ...]

    def find(self, agent: str, model: str) -> Record | None:
        return next((one for one in self.records if (one.agent, one.model) == (agent, model)), None)


NO_RESULTS = Results(format=FORMAT, records=())


class Tally:
    """Outcomes of a case so far."""

    def __init__(self, agent: AgentDefinition, case: EvalCase) -> None:
        self.agent = agent
        self.case = case
        self.outcomes: list[Outcome] = []

    @property
    def key(self) -> str:
        """Key of the case among those of all agents."""
        return f"{self.agent.id}/{self.case.key}"

    @property
    def seconds(self) -> float:
        return sum(one.seconds for one in self.outcomes)

    @property
    def counted(self) -> list[Outcome]:
        return [one for one in self.outcomes if one.counts]

    @property
    def rate(self) -> Rate:
        counted = self.counted
        return Rate(sum(one.passed for one in counted), len(counted))

    def failures(self) -> list[Outcome]:
        return [one for one in self.outcomes if one.missing]

    def record(self) -> CaseRecord:
        counted, rate = self.counted, self.rate
        runs = max(1, rate.runs)
        cost = Decimal(sum(one.cost_nano for one in counted)) / runs / NANO
        return CaseRecord(
            key=self.case.key,
            input=self.case.input,
            runs=rate.runs,
            passed=rate.passed,
            cost_usd=cost.quantize(Decimal("0.000000001")),
            seconds=round(sum(one.seconds for one in counted) / runs, 3),
            steps=round(sum(one.steps for one in counted) / runs, 2),
        )

    def told(self) -> dict[str, Any]:
        """Return the record with the first failures, for a report."""
        failures = [
            {
                "missing": one.missing,
                "output": one.output[:MAX_TOLD],
                "run_ids": one.run_ids,
                "cost_usd": usd(one.cost_nano),
            }
            for one in self.failures()[:MAX_FAILURES]
        ]
        return {**self.record().model_dump(mode="json"), "failures": failures}


def record_of(agent: str, model: Model, parts: Mapping[str, str], cases: Iterable[CaseRecord]) -> Record:
    at = rfc3339(now_ms()) or ""
    return Record(agent=agent, model=model, parts=dict(parts), recorded_at=at, cases=tuple(cases))


def kept_file(folder: Path) -> Path:
    """Return the path of an agent's kept baseline."""
    return folder / BASELINE


def read(path: Path) -> Results:
    """Read a file of results. Raises `BadBaseline`."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadBaseline(f"{path} cannot be read: {error.strerror}.") from None
    if len(content) > MAX_BYTES:
        raise BadBaseline(f"{path} has more than {MAX_BYTES} bytes.")
    try:
        return Results.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise BadBaseline(f"{path} is no file of results of evals: {where}: {first['msg']}.") from None


def kept(folder: Path) -> Results:
    """Read the kept baseline of an agent; without one, no results. Raises `BadBaseline`."""
    path = kept_file(folder)
    return read(path) if path.exists() else NO_RESULTS


def write(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON as a whole or not at all. Raises `OSError`."""
    write_whole(path, orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def results_json(records: Sequence[Record]) -> dict[str, Any]:
    return Results(format=FORMAT, records=tuple(records)).model_dump(mode="json")


def replaced(before: Results, record: Record) -> list[Record]:
    """Return the records with one in place of that of the same agent and model."""
    others = [one for one in before.records if (one.agent, one.model) != (record.agent, record.model)]
    return sorted([*others, record], key=lambda one: (one.agent, one.model))
