"""Every panel's query has data in a real Prometheus, once everything that boards show has happened."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.deploy.observability.house import House
from tests.deploy.observability.prometheus import FOLDER, needs_prometheus
from tests.jobs.house import until

pytestmark = [needs_prometheus, pytest.mark.slow, pytest.mark.timeout(300)]
# Of parts that are not in this house, or of what must never happen: their names are compared with the code elsewhere.
ABSENT = {
    "slipway_agent_canaries_total",  # of two published versions
    "slipway_transaction_retries_total",  # of collisions, of which there should be none
}


def panels() -> Iterator[tuple[str, str]]:
    """Yield the place and the query of each target, as Grafana would send it."""
    for path in sorted((FOLDER / "grafana" / "boards").glob("*.json")):
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                expression = target["expr"].replace("$__rate_interval", "1m").replace("[24h]", "[1m]")
                yield f"{board['title']} / {panel['title']}", expression


def happen(house: House) -> None:
    """Do all that boards show, once."""
    run = house.ask("assistant", "What is 17% of 2,340?").json()["run_id"]
    house.call("POST", f"/v1/runs/{run}/feedback", json={"score": 1})
    house.ask("assistant", "Tell me.", door="stream")
    for _ in range(2):
        house.call("POST", "/v1/agents/assistant/invoke", json={"input": "Asked twice."})
    house.ask("guarded", "Write to ada@example.com.")
    house.ask("flaky", "Use the breaks tool.")
    house.decide("approve")
    house.ask("careful", "Use the changes tool.")  # waits until the next time
    house.ask("assistant", "Later.", door="tasks")
    house.call("POST", "/v1/auth/login", json={"username": "demo", "password": "wrong"})
    house.model.control(fault="529", times=1)
    house.ask("assistant", "Once more.")
    house.ask("costly", "[offline tokens=700] Go on.")  # the second time beyond its cap


def test_every_panel_has_data(house: House) -> None:
    capped = {"amount_usd": "6", "period": "day"}
    house.call("PUT", "/v1/admin/budgets/agent:costly", json=capped)
    report = {"agent": "assistant", "input": "Report.", "cron": "* * * * *"}
    schedule = house.call("POST", "/v1/schedules", json=report).json()["id"]
    asked = list(panels())
    assert len(asked) > 70
    missing: list[str] = []

    def all_there() -> bool:
        happen(house)
        time.sleep(1)
        missing[:] = [f"{where}: {query}" for where, query in asked if not house.prometheus.query(query)]
        return not [each for each in missing if not any(name in each for name in ABSENT)]

    try:
        until(all_there, "data of every panel", 120)
    except BaseException:
        print("\n".join(missing))
        raise
    finally:
        house.call("DELETE", f"/v1/schedules/{schedule}")
        house.call("PUT", "/v1/admin/budgets/agent:costly", json={**capped, "amount_usd": "100"})
