"""Writers of runs and money: threads of `tests/chaos/test_lock_order.py`, a call is one turn."""

from __future__ import annotations

import random
import threading
import time

import sqlalchemy as sa

from service.jobs.upkeep import delete_expired
from service.store.schema import schedules, sessions
from service.usage.ledger import check
from service.usage.reservation import sweep_holds
from service.usage.rollup import roll_up
from tests.chaos.town import Town
from tests.usage.house import TABLE

COPIES = 12  # of an agent: each can have three windows opened
PERIODS = ("day", "month", "total")


def invoke(town: Town, turn: int) -> None:
    town.ask(town.anyone(), f"copy{turn % COPIES}", f"Question {turn}?")


def stream(town: Town, turn: int) -> None:
    town.ask(town.anyone(), "assistant", f"Tell me of {turn}.", "stream")


def steps(town: Town, turn: int) -> None:
    """Several steps: each settles the last and holds for the next."""
    town.ask(town.anyone(), "scribe", "Call the append_line tool 4 times.")


def trees(town: Town, turn: int) -> None:
    """Sub-agents side by side, whose calls take their holds from the tree's and give back."""
    town.ask(town.anyone(), "lead", f"What is {turn}? What is a plan? Who are you?")


def remotes(town: Town, turn: int) -> None:
    """Remote agents whose model calls are held and settled by the gateway, and told as steps meanwhile."""
    town.ask(town.anyone(), "caller", f"Ask of {turn}.", "stream" if turn % 2 else "invoke")


def approve(town: Town, turn: int) -> None:
    waits = town.ask(town.anyone(), "clerk", "Call the append_line tool twice.")
    for approval in waits.get("approvals", ()):
        decision = {"decision": random.choice(["approve", "deny"])}
        town.send(town.admin, "POST", f"/v1/approvals/{approval}", decision)


def converse(town: Town, turn: int) -> None:
    """Turns of one session that want it at once; then it is deleted, or its time is over."""
    client = town.anyone()
    session = town.send(client, "POST", "/v1/sessions", {"agent": "assistant"})["id"]
    how = ("queue", "interrupt", "reject")[turn % 3]
    asked = [
        threading.Thread(
            target=town.ask,
            args=(client, "assistant", f"Turn {n}", door),
            kwargs={"session_id": session, "on_conflict": how},
        )
        for n, door in enumerate(("invoke", "tasks", "invoke"))
    ]
    for thread in asked:
        thread.start()
    town.send(
        town.admin, "PUT", f"/v1/admin/budgets/session:{session}", {"amount_usd": "5", "period": "total"}
    )
    town.send(client, "PATCH", f"/v1/sessions/{session}", {"title": "Ours"})
    for thread in asked:
        thread.join()
    if turn % 2:
        town.send(client, "DELETE", f"/v1/sessions/{session}")
    else:
        town.stale.append(session)


def tasks(town: Town, turn: int) -> None:
    client = town.anyone()
    priority = ("batch", "normal", "high")[turn % 3]
    run = town.ask(client, "assistant", f"Later {turn}", "tasks", priority=priority)
    if turn % 4 == 0:
        town.send(client, "POST", f"/v1/runs/{run['run_id']}/cancel")


def plan(town: Town, turn: int) -> None:
    """Set up a schedule with three slots that are due, every other one in a session, and change it meanwhile."""
    client = town.anyone()
    session = town.send(client, "POST", "/v1/sessions", {"agent": "assistant"})["id"] if turn % 2 else None
    new = {
        "agent": "assistant",
        "input": "Later",
        "cron": "* * * * *",
        "missed": "all",
        "session_id": session,
    }
    made = town.send(client, "POST", "/v1/schedules", new)
    if "id" not in made:
        return
    past = sa.update(schedules).where(schedules.c.id == made["id"])
    past = past.values(next_at=schedules.c.next_at - 180_000)
    town.books.db.transact(lambda tx: tx.execute(past))
    path = f"/v1/schedules/{made['id']}"
    for change in ({"input": "Later still"}, {"cron": "*/2 * * * *"}, {"enabled": False}):
        time.sleep(random.random() / 2)
        town.send(client, "PATCH", path, change)
    town.send(client, "DELETE", path)


def wait_for_money(town: Town, turn: int) -> None:
    """Turns that wait under a cap of their session: it is raised for them, or some are cancelled."""
    client = town.anyone()
    for door in ("invoke", "tasks"):
        session = town.send(client, "POST", "/v1/sessions", {"agent": "assistant"})["id"]
        cap = f"/v1/admin/budgets/session:{session}"
        town.send(town.admin, "PUT", cap, {"amount_usd": "0.000001", "period": "total"})
        run = town.ask(client, "assistant", f"Later {turn}", door, session_id=session, on_cap="pause")
        if turn % 3 == 0 and "run_id" in run:
            town.send(client, "POST", f"/v1/runs/{run['run_id']}/cancel")
        town.send(town.admin, "PUT", cap, {"amount_usd": "5", "period": "total"})


def cancel(town: Town, turn: int) -> None:
    for run in town.send(town.admin, "GET", "/v1/runs?limit=10").get("data", ()):
        if (
            run["status"] in ("running", "queued", "waiting_approval", "waiting_budget")
            and random.random() < 0.2
        ):
            town.send(town.admin, "POST", f"/v1/runs/{run['run_id']}/cancel")


def stop_agents(town: Town, turn: int) -> None:
    """Stop an agent, twice at once, and release it, also while it is being stopped."""
    agent = "scribe" if turn % 4 == 3 else f"copy{turn % COPIES}"
    path, reason = f"/v1/admin/agents/{agent}", {"reason": "For a moment."}
    at_once = [("stop", reason), ("stop", reason), ("release", None)]
    threads = [
        threading.Thread(target=town.send, args=(town.admin, "POST", f"{path}/{to}", body))
        for to, body in at_once[: 2 + turn % 2]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    town.over.wait(random.random())
    town.send(town.admin, "POST", f"{path}/release")


def set_caps(town: Town, turn: int) -> None:
    """Most open a window; the others change or lift one that is open."""
    scopes = [
        f"agent:copy{turn // 3 % COPIES}",
        f"user:{random.choice(town.users)[0]}",
        "service",
        "agent:scribe",
    ]
    scope = scopes[turn % len(scopes)]
    amount = None if turn % 5 == 4 else "40"
    body = {"amount_usd": amount, "period": PERIODS[turn // 4 % 3]}
    town.send(town.admin, "PUT", f"/v1/admin/budgets/{scope}", body)
    town.send(town.admin, "GET", "/v1/admin/budgets")


def upkeep(town: Town, turn: int) -> None:
    """Run upkeep with retention 0, concurrently in another process."""
    stale, town.stale = town.stale, []
    over = sa.update(sessions).where(sessions.c.id.in_(stale)).values(expires_at=1)
    town.books.db.transact(lambda tx: tx.execute(over))
    delete_expired(town.books.db, 0)
    roll_up(town.books.db)
    sweep_holds(town.books.db, town.books.spending, older_than=0)


def verify(town: Town, turn: int) -> None:
    faults = check(town.books.db, TABLE).faults
    town.wrong += [str(fault) for fault in faults]
