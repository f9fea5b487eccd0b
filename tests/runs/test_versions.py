"""Runs while their agent is edited: which version drives them, and which one the run, its events and the cache say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.approvals import decide
from service.cache.lookup import Lookup
from service.ids import new_id
from service.infra.redis_trip import Trip
from service.store import approvals as approval_rows
from service.store import runs as rows
from service.store.approvals import Decision
from service.types import Caller, Event, RunStatus
from service.wiring import Services
from tests.conftest import RedisServer
from tests.llm.wire_server import Exchange, WireServer
from tests.runs import inside
from tests.runs.scripted import REACT, ask, call, calls, message, says, services, stream_of

CACHED = f"{inside.SINGLE}cache: {{ttl_seconds: 600}}\n"
ROOT = Caller("usr_root", "root", "admin")


@pytest.fixture
def live(tmp_path: Path, redis_server: RedisServer, upstream: WireServer, url: str) -> Iterator[Services]:
    """The agent `probe`, which asks before it pays and whose folder may be edited, over either database."""
    spec = f"{REACT}approvals: [refund]\n"
    with services(tmp_path, redis_server.url, upstream, spec, reload=True, database_url=url) as wired:
        yield wired


def edit(wired: Services, **files: str) -> str:
    """Write files of the folder; the version that it has then."""
    for name, text in files.items():
        (wired.settings.agents_dir / "probe" / name.replace("_", ".")).write_text(text)
    wired.agents.refresh()
    return wired.agents.agents["probe"].version


def systems(upstream: WireServer) -> list[str]:
    """The system prompt of every call."""
    return [asked.json["system"].rpartition("\n\n")[2] for asked in upstream.requests]


def test_a_run_under_way_keeps_its_version(live: Services, upstream: WireServer) -> None:
    old = live.agents.agents["probe"].version

    def edited_meanwhile(exchange: Exchange) -> None:
        edit(live, prompt_md="Be better.")
        calls(call("echo", {"text": "a"}))(exchange)

    upstream.script = [edited_meanwhile, message(says("Done."))]
    run = ask(live)
    assert run.result is not None and run.result["agent_version"] == run.agent_version == old
    assert systems(upstream) == ["Be good.", "Be good."]
    after = ask(live)
    assert after.agent_version == live.agents.agents["probe"].version != old
    assert systems(upstream)[-1] == "Be better."


def test_a_run_that_goes_on_after_an_edit_says_which_version_does(
    live: Services, upstream: WireServer
) -> None:
    old = live.agents.agents["probe"].version
    upstream.script = [calls(call("refund", {"order": "1"}))]
    waiting = ask(live)
    assert (waiting.status, waiting.agent_version) == (RunStatus.WAITING_APPROVAL, old)
    new = edit(live, prompt_md="Be better.")
    approve(live, waiting.id)
    upstream.script = [message(says("Paid."))]
    assert live.runs.execution.take_up(waiting.id)
    run = live.runs.queries.get(waiting.id)
    assert run.result is not None
    assert (run.status, run.agent_version, run.result["agent_version"]) == ("succeeded", new, new)
    assert systems(upstream) == ["Be good.", "Be better."]
    told = {event.name: event.data.get("agent_version") for event in live.runs.queries.so_far(run.id)}
    assert (told[Event.RUN_STARTED], told[Event.RUN_RESUMED], told[Event.RUN_COMPLETED]) == (old, new, new)


def approve(wired: Services, run_id: str) -> None:
    def work(tx: Any) -> None:
        [asked] = [row for row in approval_rows.of_run(tx, run_id) if row["status"] == "pending"]
        decide(tx, ROOT, asked["id"], Decision("approve", None, None, "dec_1"))

    wired.infra.db.transact(work)


def test_a_queued_run_begins_with_the_version_that_is_there_then(
    live: Services, upstream: WireServer
) -> None:
    queued = live.runs.start.queue(inside.ADA, inside.request("Do it.", cache="bypass"), None, "req").run
    new = edit(live, prompt_md="Be better.")
    upstream.script = [stream_of("Done.")]
    assert live.runs.execution.take_up(queued.id)
    run = live.runs.queries.get(queued.id)
    assert (run.status, run.agent_version, queued.agent_version != new) == ("succeeded", new, True)
    assert systems(upstream) == ["Be better."]
    assert live.runs.queries.so_far(run.id)[0].data["agent_version"] == new


def test_an_edited_agent_is_given_no_old_answer(live: Services, upstream: WireServer) -> None:
    edit(live, agent_yaml=CACHED)
    question = f"What time is it in {new_id('x')}?"  # asked nowhere else
    first, again = (inside.ask(live, question) for _ in range(2))
    assert (first.cache, again.cache) == ("miss", "hit")
    new = edit(live, prompt_md="Be better.")
    third = inside.ask(live, question)
    assert (third.cache, third.agent_version) == ("miss", new)
    _, told = live.runs.start.stream(inside.ADA, inside.request(question), None, "req")
    events = [event.data for batch in told for event in batch]
    assert events[0]["agent_version"] == events[-1]["agent_version"] == new


def test_an_answer_of_another_version_is_not_kept(live: Services, upstream: WireServer) -> None:
    """A run that another worker ended, after an edit, answers its client and nobody else."""
    edit(live, agent_yaml=CACHED)
    request = inside.request(f"What time is it in {new_id('x')}?")
    run = inside.ask(live, request.question, cache="bypass")
    agent = live.agents.agents["probe"]
    question = live.runs.start.lookups.answers.question(agent, request, inside.ADA, agent.models[0])
    trip = Trip(live.infra.redis_store)
    turn = Lookup(live.runs.start.lookups.single_flight, run, question, agent.cache)
    turn.run.agent_version = "another"
    turn.end(trip)
    trip.send()
    assert live.runs.start.lookups.single_flight.find(question, None).cache == "miss"


def test_a_version_is_noted_by_the_attempt_that_has_the_run(live: Services, upstream: WireServer) -> None:
    run = ask(live)
    run.agent_version = "late"
    assert not live.infra.db.transact(lambda tx: rows.note_version(tx, run))
