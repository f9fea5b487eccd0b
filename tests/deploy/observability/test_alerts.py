"""Each alert fires when its part is really broken, and clears when that is mended. Minutes of a rule are seconds."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.deploy.observability.house import House
from tests.deploy.observability.prometheus import needs_prometheus
from tests.small_disk import fill

pytestmark = [needs_prometheus, pytest.mark.slow, pytest.mark.timeout(300)]


def test_model_that_fails(house: House) -> None:
    house.many(20, "assistant", "Warm?")
    house.model.control(fault="503")
    names = ("BreakerOpen", "ErrorsHigh", "CompletionLow")
    house.fires(*names, doing=lambda: house.many(8, "assistant", "Gone?"))
    house.model.control()
    house.clears(*names, doing=lambda: house.many(4, "assistant", "Back?"))


def test_model_that_is_slow(house: House) -> None:
    house.model.control(first_token_ms=11_000)
    house.fires("LatencyHigh", doing=lambda: house.many(24, "assistant", "Slow?"))
    house.model.control()
    house.clears("LatencyHigh")


def test_provider_near_its_limit(house: House) -> None:
    house.proxy.low = True
    house.fires("ProviderHeadroomLow", doing=lambda: house.ask("assistant", "Left?"))
    house.proxy.low = False
    house.clears("ProviderHeadroomLow", doing=lambda: house.ask("assistant", "More?"))


def test_tool_that_fails(house: House) -> None:
    house.fires("ToolFailing", doing=lambda: house.many(12, "flaky", "Use the breaks tool."))
    house.clears("ToolFailing")


def test_people_who_do_not_decide(house: House) -> None:
    house.fires("ApprovalWaiting", doing=lambda: house.many(6, "careful", "Use the changes tool."))

    def ask_and_decide() -> None:
        house.many(3, "careful", "Use the changes tool.")
        house.decide("approve")

    house.fires("EscalationHigh", doing=ask_and_decide)
    house.clears("ApprovalWaiting", "EscalationHigh", doing=lambda: house.decide("approve"))


def test_prompts_that_fill_the_context(house: House) -> None:
    long = "All of this is read by you. " * 720
    house.fires("ContextNearlyFull", doing=lambda: house.many(6, "reader", long))
    house.clears("ContextNearlyFull")


def test_run_in_a_loop(house: House) -> None:
    house.model.control(first_token_ms=400)
    run = house.ask("looper", "Use the looks tool 50 times.", door="tasks").json()["run_id"]
    house.fires("RunInALoop")
    house.call("POST", f"/v1/runs/{run}/cancel")
    house.clears("RunInALoop")


def test_agent_that_spends(house: House) -> None:
    house.fires("TokenSpike", doing=lambda: house.many(8, "reader", "A long question. " * 400))
    house.fires("CostPerRequestHigh", doing=lambda: house.many(2, "costly", "[offline tokens=700] Go on."))
    house.clears("TokenSpike", "CostPerRequestHigh")


def test_cap_that_is_nearly_spent(house: House) -> None:
    house.ask("costly", "[offline tokens=700] Go on.")
    path, scope = "/v1/admin/budgets/agent:costly", {"scope": "agent:costly"}
    house.call("PUT", path, json={"amount_usd": "100", "period": "day"})
    spent = float(house.call("GET", "/v1/admin/budgets", params=scope).json()["data"][0]["spent_usd"])
    house.call("PUT", path, json={"amount_usd": f"{spent / 0.95:.6f}", "period": "day"})
    house.fires("CapNear")
    house.call("PUT", path, json={"amount_usd": "100", "period": "day"})
    house.clears("CapNear")


def test_cap_that_was_passed(house: House) -> None:
    house.ask("assistant", "A counter.")
    counter = "scope = 'service' AND period = 'day'"
    house.postgres.sql(f"UPDATE counters SET spent_nano = spent_nano + cap_nano + 1 WHERE {counter}")
    house.fires("CapPassed")
    house.postgres.sql(f"UPDATE counters SET spent_nano = spent_nano - cap_nano - 1 WHERE {counter}")
    house.clears("CapPassed")


def test_redis_that_is_gone(house: House) -> None:
    house.redis.kill()
    try:
        house.fires("RedisAway", doing=lambda: house.ask("assistant", "Without?"))
    finally:
        house.redis.start()
    house.clears("RedisAway", doing=lambda: house.many(8, "assistant", "With?"))


def test_database_that_is_gone(house: House) -> None:
    house.postgres.stop()
    try:
        house.fires("DatabaseAway")
    finally:
        house.postgres.start()
    house.clears("DatabaseAway")


def test_disk_that_is_full(house: House) -> None:
    ballast = fill(house.home)
    try:
        house.fires("DiskNearlyFull")
    finally:
        ballast.unlink()
    house.clears("DiskNearlyFull")


def test_worker_that_hangs(house: House) -> None:
    """Tasks wait for it until its lease ends; it does not answer Prometheus."""
    assert house.worker.child is not None
    with house.frozen(house.worker.child.pid):
        house.fires("QueueOld", "ReplicaDown", doing=lambda: house.ask("assistant", "Later.", door="tasks"))
    house.clears("QueueOld", "ReplicaDown")


def test_schedule_that_may_not_run(house: House) -> None:
    body = {"agent": "assistant", "input": "Report.", "cron": "* * * * *"}
    schedule = house.call("POST", "/v1/schedules", json=body).json()["id"]
    house.call("POST", "/v1/admin/agents/assistant/stop", json={"reason": "a test"})
    try:
        house.fires("ScheduleMissed")
    finally:
        house.call("POST", "/v1/admin/agents/assistant/release")
        house.call("DELETE", f"/v1/schedules/{schedule}")
    house.clears("ScheduleMissed")


def test_audit_that_was_changed(house: House) -> None:
    """Restarted workers verify it within seconds; else it is verified every quarter of an hour."""
    change = "UPDATE audit SET actor = {} WHERE id = (SELECT min(id) FROM audit)"
    house.postgres.sql("ALTER TABLE audit DISABLE TRIGGER audit_append_only")
    was = house.postgres.sql("SELECT actor FROM audit ORDER BY id LIMIT 1")
    house.postgres.sql(change.format("'nobody'"))
    os.kill(house.server.child.pid, signal.SIGHUP)
    house.fires("AuditBroken")
    house.postgres.sql(change.format(f"'{was}'"))
    os.kill(house.server.child.pid, signal.SIGHUP)
    house.clears("AuditBroken")


def test_service_that_hangs(house: House) -> None:
    with house.frozen(house.server.child.pid):
        house.fires("ServiceDown", doing=lambda: time.sleep(0.2))
    house.clears("ServiceDown")
