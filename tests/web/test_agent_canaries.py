"""Canaries of agents: a share of sessions on each replica, compared, rolled back when worse, promoted by a pin."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from service.agents import canaries as chore
from service.audit.record import Action
from service.ids import new_id
from service.store import agent_canaries as rows
from service.store import runs, schema
from service.types import Caller, RunRequest, RunStatus, now_ms
from tests.usage.conftest import postgres_url, url
from tests.web.test_agent_versions import House

__all__ = ["postgres_url", "url"]


class Trial(House):
    """House whose agent has a pinned version and a canary of half of the sessions."""

    def __init__(self, folder: Path, url: str) -> None:
        super().__init__(folder, url)
        self.pinned = self.change("publish")["data"][0]["version"]
        self.change("pin", version=self.pinned)
        self.edit("second")
        self.version = self.change("publish")["data"][0]["version"]
        user = self.services(0).auth.users.by_name("demo")
        self.caller = Caller(user.id, "demo", "admin")

    def start(self, share: float = 0.5) -> Any:
        shown = self.change("canary", version=self.version, share=share)
        for number in (0, 1):
            self.services(number).versions.refresh()
        return shown["canary"]

    def run(self, number: int = 0, session_id: str | None = None, cache: str = "bypass", **ended: Any) -> Any:
        """Open a run in a session of its own, and end it as the canary or the pinned version does."""
        services = self.services(number)
        message = {"role": "user", "content": "Hello"}
        request = RunRequest("probe", (message,), session_id=session_id or new_id("ses"))
        run = services.runs.start.new_runs.make(self.caller, request, "wait", "req")
        of_side = ended.get("canary" if run.agent_version == self.version else "pinned", {})
        values = {"status": RunStatus.SUCCEEDED, "cost_nano": 1_000, "cache": cache, **of_side}
        end = sa.update(schema.runs).where(schema.runs.c.id == run.id)

        def write(tx: Any) -> None:
            runs.insert(tx, run, worker_id=None)
            tx.execute(end.values(finished_at=now_ms(), worker_id=None, **values))

        services.infra.db.transact(write)
        return run

    def compare(self, number: int = 1) -> Any:
        """Compare as a sweep would; return the canary as shown."""
        services = self.services(number)
        services.infra.db.transact(lambda tx: tx.execute(sa.update(schema.agent_canaries).values(next_at=0)))
        services.versions.canaries.compare()
        return self.shown()

    def shown(self) -> Any:
        answer = self.ask()
        assert answer.status_code == 200, answer.text
        return answer.json["canary"]

    def audited(self) -> list[Any]:
        query = sa.text("SELECT actor, details FROM audit WHERE action IN (:begun, :ended) ORDER BY id")
        query = query.bindparams(begun=Action.AGENT_CANARY, ended=Action.AGENT_CANARY_ENDED)
        found = self.services(0).infra.db.query(lambda tx: tx.rows(query))
        details = [row["details"] for row in found]
        return [json.loads(one) if isinstance(one, str) else one for one in details]


@pytest.fixture
def trial(tmp_path: Path, url: str) -> Iterator[Trial]:
    made = Trial(tmp_path, url)
    yield made
    made.close()


def test_share_of_sessions_gets_the_canary_on_every_replica(trial: Trial) -> None:
    shown = trial.start(share=0.3)
    assert (shown["version"], shown["against"], shown["share"]) == (trial.version, trial.pinned, 0.3)
    assert (shown["verdict"], shown["outcome"], shown["runs"]) == (
        "waiting",
        None,
        {"canary": 0, "pinned": 0},
    )
    sessions = [new_id("ses") for _ in range(300)]
    catalogs = [trial.services(number).agents for number in (0, 1)]
    served = [[each.served_to("probe", session).version for session in sessions] for each in catalogs]
    assert served[0] == served[1], "a session has one version, wherever it is served"
    counts = Counter(served[0])
    assert set(counts) == {trial.pinned, trial.version} and 50 < counts[trial.version] < 130
    groups = Counter(catalogs[0].trial_of("probe", session) for session in sessions)
    assert 130 < groups["canary 1"] < 230, "with the control group, which is as large"
    trial.change("end_canary")
    for number in (0, 1):
        trial.services(number).versions.refresh()
        assert {catalogs[number].served_to("probe", one).version for one in sessions} == {trial.pinned}
    assert [one.get("outcome") for one in trial.audited()] == [None, "ended"]


def test_worse_canary_is_rolled_back_by_itself(trial: Trial) -> None:
    trial.start()
    for _ in range(40):
        trial.run(canary={"status": RunStatus.FAILED})
    shown = trial.compare()
    assert (shown["verdict"], shown["outcome"]) == ("waiting", None), "fewer than 50 runs a side"
    for number in range(100):
        trial.run(number % 2, canary={"status": RunStatus.FAILED})
    shown = trial.compare()
    assert (shown["verdict"], shown["worse_in"], shown["outcome"]) == ("worse", "failures", "rolled_back")
    assert shown["failures"] == {"canary": shown["runs"]["canary"], "pinned": 0} and shown["ended_at"]
    assert sum(shown["runs"].values()) == 140
    for number in (0, 1):
        trial.services(number).versions.refresh()
        assert trial.run(number).agent_version == trial.pinned
    told = trial.audited()[-1]
    assert told == {"version": trial.version, "outcome": "rolled_back", "worse_in": "failures"}
    assert 'slipway_agent_canaries_total{agent="probe",outcome="rolled_back"} 1.0' in (
        trial.services(1).infra.metrics.render()[0].decode()
    )


def test_equal_canary_stays_until_a_person_pins_it(trial: Trial) -> None:
    trial.start()
    for number in range(130):
        trial.run(pinned={"cost_nano": 1_000 + number}, canary={"cost_nano": 1_000 + number})
    shown = trial.compare()
    assert (shown["verdict"], shown["worse_in"], shown["outcome"]) == ("not_worse", None, None)
    assert shown["cost"]["canary"] is not None and shown["looks"] >= 1
    assert trial.ask({"action": "canary", "version": trial.version, "share": 0.1}).status_code == 409
    promoted = trial.change("pin", version=trial.version)
    assert (promoted["pinned"], promoted["canary"]["outcome"]) == (trial.version, "pinned")
    trial.services(0).versions.refresh()
    assert {trial.run().agent_version for _ in range(10)} == {trial.version}


def test_runs_that_do_not_count(trial: Trial) -> None:
    """Answers from the cache, runs that have not ended, and those of sessions outside of both groups."""
    trial.start(share=0.05)
    for cache in ("hit", "near", "coalesced", "stale"):
        for _ in range(10):
            trial.run(cache=cache)
    for status in (RunStatus.RUNNING, RunStatus.CANCELLED):
        for _ in range(10):
            trial.run(canary={"status": status}, pinned={"status": status})
    split = chore.split_of(trial.services(0).infra.db.query(lambda tx: rows.last(tx, "probe")))
    outside = next(one for one in map(str, range(100)) if split.side(one) is None)
    trial.run(session_id=outside)
    inside = [
        next(one for one in map(str, range(10_000)) if split.side(one) == side)
        for side in ("canary", "control")
    ]
    for session in inside:
        trial.run(session_id=session)
    assert trial.compare()["runs"] == {"canary": 1, "pinned": 1}


def test_what_is_refused(trial: Trial) -> None:
    for body, status in (
        ({"action": "canary", "version": "0" * 12, "share": 0.05}, 422),
        ({"action": "canary", "version": trial.pinned, "share": 0.05}, 422),
        ({"action": "canary", "version": trial.version, "share": 0.6}, 422),
        ({"action": "end_canary"}, 409),
    ):
        answer = trial.ask(body)
        assert answer.status_code == status, answer.text
    trial.change("unpin")
    assert trial.ask({"action": "canary", "version": trial.version, "share": 0.05}).status_code == 409
