"""Runs longer than the context window: notes replace older tool calls, at every attempt in the same places."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from service.store import schema
from service.types import Event, Run, RunStatus
from service.wiring import Services
from tests.conftest import Model, RedisServer
from tests.messages_api.asked import Asked, Said, says, text_of
from tests.runs import inside
from tests.runs.long_work import Reader, api, services
from tests.runs.scripted import ask, holds, kept, tell
from tests.runs.scripted import text_of as told_text

QUESTION = "What is the vault code?"
ANSWER = "The code is K-7731."
LEAST = 4_000  # tokens: the smallest window an agent may have


def compactions(wired: Services, run: Run) -> list[str]:
    return [row["name"] for row in kept(wired, run) if row["name"].startswith("compact")]


def is_notes(asked: Asked) -> bool:
    return asked.system.startswith("You keep notes")


def output(run: Run) -> str:
    assert run.status == "succeeded" and run.result is not None, run.error
    return str(run.result["output"])


def lose_after(wired: Services, run: Run, step: int) -> None:
    """Leave the run as if its worker had died after that step."""

    def lost(tx: Any) -> None:
        steps, runs = schema.steps, schema.runs
        tx.execute(sa.delete(steps).where(steps.c.run_id == run.id, steps.c.n > step))
        row = sa.update(runs).where(runs.c.id == run.id)
        tx.execute(row.values(status=RunStatus.QUEUED, finished_at=None, result=None, worker_id=None))

    wired.infra.db.transact(lost)


def test_fact_of_step_3_is_used_at_step_200_in_a_window_of_20000(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    reader = Reader(200)
    with (
        api(reader, 20_000) as model,
        services(tmp_path, redis_server.url, model.url, 20_000, steps=201) as wired,  # notes are no steps
    ):
        run = ask(wired)
        assert output(run) == ANSWER
        assert (model.faults, model.too_long, holds(wired)) == ([], 0, 0)
        assert run.result is not None and len(run.result["tools"]) == 200
        # Half is freed at once: one compaction serves for many calls, so that the prompt cache is read in between.
        assert compactions(wired, run) == [f"compact {n}" for n in range(1, reader.notes + 1)]
        assert 5 <= reader.notes <= 20


def test_fact_survives_thirty_compactions(tmp_path: Path, redis_server: RedisServer) -> None:
    reader = Reader(110, size=3_200)
    with api(reader, LEAST) as model, services(tmp_path, redis_server.url, model.url, LEAST) as wired:
        run = ask(wired)
        assert output(run) == ANSWER
    assert reader.notes >= 30 and 3 <= reader.rewritten <= reader.notes / 3
    assert (model.faults, model.too_long) == ([], 0)
    noted = [one.prompt.partition("<notes about")[2] for one in model.requests if not is_notes(one)]
    assert max(map(len, noted)) < 4 * LEAST / 6 + 500  # a sixth of the window, and the element's own words


def test_worker_killed_at_any_step_compacts_at_the_same_places(
    tmp_path: Path, redis_server: RedisServer, url: str
) -> None:
    with (
        api(Reader(12, size=3_200), LEAST) as model,
        services(tmp_path, redis_server.url, model.url, LEAST, database_url=url) as wired,
    ):
        run = ask(wired)
        first, rows = [one.body for one in model.requests], kept(wired, run)
        assert len(compactions(wired, run)) >= 3
        calls = [row["kind"] == "model" for row in rows]
        for step in range(1, len(rows)):
            model.requests.clear()
            lose_after(wired, run, step)
            assert wired.runs.execution.take_up(run.id)
            assert output(wired.runs.queries.get(run.id)) == ANSWER
            assert [one.body for one in model.requests] == first[sum(calls[:step]) :]
        assert [row["name"] for row in kept(wired, run)] == [row["name"] for row in rows]
        assert (model.faults, holds(wired)) == ([], 0)


def test_notes_are_hidden_and_streamed_text_is_the_answer(tmp_path: Path, redis_server: RedisServer) -> None:
    with api(Reader(12), LEAST) as model, services(tmp_path, redis_server.url, model.url, LEAST) as wired:
        events = tell(wired)
    assert told_text(events) == ANSWER == events[-1].data["output"]
    begun = [event.data["name"] for event in events if event.name is Event.STEP_STARTED]
    assert "compact 1" in begun and begun.count("think 1") == 1
    assert model.faults == []


def test_question_stays_whole_and_the_newest_calls_stay(tmp_path: Path, redis_server: RedisServer) -> None:
    with (
        api(Reader(12, each=2), LEAST) as model,
        services(tmp_path, redis_server.url, model.url, LEAST) as wired,
    ):
        assert output(ask(wired)) == ANSWER
    asked = [one for one in model.requests if not is_notes(one)]
    assert all(one.prompt.startswith("Do it.") for one in asked)
    assert all(one.calls for one in asked[1:]) and any("<notes about" in one.prompt for one in asked)
    assert model.faults == []


def test_text_of_a_result_cannot_close_the_element_around_it(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    with api(Reader(12), LEAST) as model, services(tmp_path, redis_server.url, model.url, LEAST) as wired:
        assert output(ask(wired)) == ANSWER
    noted = [text_of(one.messages[0]["content"]) for one in model.requests if is_notes(one)]
    assert noted and all(text.count("</conversation>") == 1 for text in noted)


@pytest.mark.parametrize("each", [1, 4])
def test_results_larger_than_the_window_are_cut_with_a_mark(
    tmp_path: Path, redis_server: RedisServer, each: int
) -> None:
    reader = Reader(8, size=19_000, each=each)
    with api(reader, LEAST) as model, services(tmp_path, redis_server.url, model.url, LEAST) as wired:
        assert output(ask(wired)) == ANSWER
    results = [text for one in model.requests for text in one.results]
    assert results and all("[… cut here: " in text for text in results)
    assert (model.faults, model.too_long) == ([], 0)


def test_prompt_refused_as_too_long_is_compacted_once_more(tmp_path: Path, redis_server: RedisServer) -> None:
    """The model's window is smaller than the agent's `context_tokens`."""
    with api(Reader(30), 9_000) as model, services(tmp_path, redis_server.url, model.url, 40_000) as wired:
        run = ask(wired)
        first, rows = [one.body for one in model.requests], kept(wired, run)
        assert output(run) == ANSWER
        assert (model.faults, model.too_long, holds(wired)) == ([], 1, 0)
        refused = next(row["n"] for row in rows if row["reply"].get("stop_reason") == "prompt_too_long")
        for step in (refused, refused + 1):
            model.requests.clear()
            lose_after(wired, run, step)
            assert wired.runs.execution.take_up(run.id)
            assert output(wired.runs.queries.get(run.id)) == ANSWER
            assert [one.body for one in model.requests] == first[-len(model.requests) :]
        assert model.too_long == 1


@pytest.mark.parametrize("pages", [0, 12])
def test_prompt_that_never_fits_fails_with_a_clear_code(
    tmp_path: Path, redis_server: RedisServer, pages: int
) -> None:
    window = 300 if pages else 30
    with api(Reader(pages), window) as model, services(tmp_path, redis_server.url, model.url, LEAST) as wired:
        run = ask(wired)
        assert run.status == "failed" and run.error is not None
        assert (run.error["code"], run.error["status"], holds(wired)) == ("prompt_too_long", 422, 0)
        assert "UPSTREAM" not in str(run.error) and "maximum" not in str(run.error)
        assert model.too_long <= 2


@pytest.mark.parametrize("said", [Said([], "refusal"), says(" "), says("No.", stop="refusal")])
def test_run_goes_on_where_no_notes_can_be_taken(
    tmp_path: Path, redis_server: RedisServer, said: Said
) -> None:
    reader = Reader(12)

    def script(asked: Asked) -> Said:
        return said if is_notes(asked) else reader(asked)

    with api(script, LEAST) as model, services(tmp_path, redis_server.url, model.url, LEAST) as wired:
        assert output(ask(wired)) == "I do not know."
    assert any("of which no notes could be taken" in one.prompt for one in model.requests)
    assert model.faults == []


def test_failed_note_call_fails_the_run(tmp_path: Path, redis_server: RedisServer) -> None:
    reader = Reader(12)
    script: Callable[[Asked], Said] = lambda asked: Said(status=400) if is_notes(asked) else reader(asked)  # noqa: E731
    with api(script, LEAST) as model, services(tmp_path, redis_server.url, model.url, LEAST) as wired:
        run = ask(wired)
        assert run.status == "failed" and run.error is not None
        assert (run.error["code"], holds(wired)) == ("model_rejected", 0)


def test_offline_model_finds_a_fact_of_step_3_at_step_200(
    tmp_path: Path, redis_server: RedisServer, model: Model
) -> None:
    with services(tmp_path, redis_server.url, model.url, 20_000) as wired:
        run = inside.ask(wired, f"Use the page tool 200 times. {QUESTION}")
        told = output(run)
        assert "the vault code is K-7731" in told and "called 200 times" in told
        assert run.result is not None and len(run.result["tools"]) == 200
        assert len(compactions(wired, run)) >= 5 and holds(wired) == 0
