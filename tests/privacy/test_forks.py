"""Forks of a user's runs by others are erased with the user."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.ids import new_id
from service.runs.forks import Wanted
from service.store import runs
from service.store.personal_erasure import ended_runs, unfinished_runs
from service.types import Caller
from tests.made import app_in, close
from tests.rules.world import AGENT, PASSWORD, World
from tests.usage.conftest import postgres_url, url

__all__ = ["postgres_url", "url"]


@pytest.mark.parametrize("ended", [True, False])
def test_forks_by_others_are_found_at_an_erasure(tmp_path: Path, url: str, ended: bool) -> None:
    app = app_in(tmp_path, DATABASE_URL=url)
    services = app.extensions["slipway"]
    ada, eve = (services.auth.users.create(name, PASSWORD, "operator") for name in ("ada", "eve"))
    world = World(app, ada, {})
    operator = Caller(eve.id, "eve", "operator")

    def fork(run_id: str) -> str:
        request = services.runs.forks.request(operator, run_id, Wanted(1))
        run = services.runs.start.queue(operator, request, None, new_id("req")).run
        services.runs.cancellation.cancel(run)
        found: str = run.id
        return found

    of_ada = fork(world.ended_run(ada.id))
    again = fork(of_ada)
    own = fork(world.ended_run(eve.id))
    if not ended:
        request = services.runs.forks.request(operator, again, Wanted(1))
        waiting = services.runs.start.queue(operator, request, None, new_id("req")).run.id
        assert services.infra.db.query(lambda tx: unfinished_runs(tx, ada.id, 10)) == [waiting]
    else:
        found = services.infra.db.query(lambda tx: ended_runs(tx, ada.id, 10))
        assert {of_ada, again} < set(found) and own not in found
        services.erasures.erase(ada.id)
        for run_id in (of_ada, again):
            assert services.infra.db.query(lambda tx, run_id=run_id: runs.get(tx, run_id)) is None
        assert services.runs.queries.get(own).agent == AGENT
    close(app)
