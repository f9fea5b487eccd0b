"""Writers of users, log-ins, keys and workspaces: threads of `tests/chaos/test_lock_order.py`, a call is one turn."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

import httpx2
import sqlalchemy as sa

from service.auth.signing_keys import Lifetimes, SigningKeys
from service.errors import Conflict
from service.ids import new_id
from service.store import identities, keys, token_families, users
from service.store.database import Transaction
from service.store.identities import Identity
from service.store.schema import api_keys
from service.types import now_ms
from tests.chaos.town import Town
from tests.web.people import PASSWORD


@contextmanager
def with_a_run(town: Town) -> Iterator[tuple[str, httpx2.Client]]:
    """Make a user with a session, a key, a cap and feedback, one of whose runs is under way during the block."""
    user_id, client = town.join()
    with client:
        key = town.send(client, "POST", "/v1/auth/keys", {"name": "mine"})
        cap = {"amount_usd": "1", "period": "day"}
        town.send(town.admin, "PUT", f"/v1/admin/budgets/key:{key['id']}", cap)
        session = town.send(client, "POST", "/v1/sessions", {"agent": "assistant"})["id"]
        run = town.ask(client, "assistant", "Who am I?", session_id=session)
        town.send(client, "POST", f"/v1/runs/{run.get('run_id', 'run_none')}/feedback", {"score": 1})
        asked = threading.Thread(
            target=town.ask, args=(client, "assistant", "Still there?"), kwargs={"session_id": session}
        )
        asked.start()
        yield user_id, client
        asked.join()


def leave(town: Town, turn: int) -> None:
    """Delete a user during a run."""
    with with_a_run(town) as (user_id, _):
        town.send(town.admin, "DELETE", f"/v1/admin/users/{user_id}")


def erase(town: Town, turn: int) -> None:
    """Erase a user during a run; every other one is disabled at the same moment."""
    with with_a_run(town) as (user_id, _):
        path = f"/v1/admin/users/{user_id}"
        disable = threading.Thread(target=town.send, args=(town.admin, "PATCH", path, {"disabled": True}))
        if turn % 2:
            disable.start()
        town.send(town.admin, "POST", f"{path}/erase")
        if turn % 2:
            disable.join()


def disable(town: Town, turn: int) -> None:
    """Disable a user during a run and a task, who renews a log-in meanwhile, and enable them again."""
    with with_a_run(town) as (user_id, client):
        path = f"/v1/admin/users/{user_id}"
        town.ask(client, "assistant", "Later", "tasks")
        log_in = {"username": town.names[user_id], "password": PASSWORD}
        signs_in = threading.Thread(target=town.send, args=(client, "POST", "/v1/auth/login", log_in))
        signs_in.start()
        for disabled in (True, False):
            town.send(town.admin, "PATCH", path, {"disabled": disabled})
        signs_in.join()
        town.send(town.admin, "DELETE", f"{path}/logins")


def sign_in(town: Town, turn: int) -> None:
    """Sign in, renew, and sign out, or leave the log-in to its end."""
    user_id, client = random.choice(town.users)
    log_in = {"username": town.names[user_id], "password": PASSWORD}
    pair = town.send(client, "POST", "/v1/auth/login", log_in)
    for kind, path in (("refresh_token", "refresh"), ("access_token", "logout"))[: 1 + turn % 2]:
        with town.server.visitor() as visitor:
            visitor.headers["Authorization"] = f"Bearer {pair[kind]}"
            town.send(visitor, "POST", f"/v1/auth/{path}")


def keys_of_a_user(town: Town, turn: int) -> None:
    """Rotate a key twice at once while it is used and its limit changes; then it is revoked."""
    client = town.anyone()
    key = town.send(client, "POST", "/v1/auth/keys", {"name": "rotates"})
    path = f"/v1/auth/keys/{key['id']}"
    changes: list[tuple[str, str, object]] = [
        ("POST", f"{path}/rotate", {"overlap_seconds": 60}),
        ("POST", f"{path}/rotate", {"overlap_seconds": 0}),
        ("PATCH", path, {"limit_runs": "600/minute", "cap_usd": "1"}),
    ]
    threads = [threading.Thread(target=town.send, args=(client, *change)) for change in changes]
    for thread in threads:
        thread.start()
    with town.server.visitor() as program:
        program.headers["Authorization"] = f"Bearer {key['key']}"
        town.ask(program, "assistant", f"By key {turn}?")
    for thread in threads:
        thread.join()
    town.send(client, "DELETE", path)


def note_uses(town: Town, turn: int) -> None:
    """Note the use of all keys at once, as another process does."""
    every = town.books.db.query(lambda tx: tx.rows(sa.select(api_keys.c.id)))
    used = partial(keys.used, key_ids=[row["id"] for row in every], at=now_ms(), precision=0)
    town.books.db.transact(used)


def link(town: Town, turn: int) -> None:
    """Identities of an issuer move between users, whose log-ins end, and whose roles change."""
    while len(town.linked) < 3:
        user_id, client = town.join()
        client.close()
        town.linked.append(user_id)
    db, identity = town.books.db, Identity("https://login.example", f"sub-{turn % 4}")
    owner = random.choice(town.linked)
    marker, now = new_id("fam"), now_ms()

    def move(tx: Transaction) -> None:
        had = identities.owner(tx, identity)
        former = had or owner
        users.lock(tx, {owner, former})
        identities.link(tx, identity, owner, had)
        token_families.revoke_all(tx, former, marker, now)

    with suppress(Conflict):  # another gave it away meanwhile
        db.transact(move)
    db.transact(lambda tx: identities.keep_roles_at(tx, identity, now))
    family = new_id("fam")
    db.transact(lambda tx: token_families.insert(tx, family, owner, "", now=now, expires_at=now + 60_000))
    town.send(town.admin, "PATCH", f"/v1/admin/users/{owner}", {"role": ("user", "operator")[turn % 2]})


def rotate_signing_keys(town: Town, turn: int) -> None:
    """Rotate keys under a secret of its own: the service's stay as they are."""
    keys = SigningKeys(town.books.db, "a" * 32, "", Lifetimes(0, 3600))
    with suppress(Conflict):
        keys.rotate()


def tenants(town: Town, turn: int) -> None:
    """Workspaces come and go while their users do, and their caps are set."""
    path = "/v1/admin/workspaces"
    names = [f"w{turn}-{random.getrandbits(64):x}" for _ in range(2)]
    made, other = (town.send(town.admin, "POST", path, {"name": name})["id"] for name in names)
    body = {"username": "ada", "password": "a-password", "workspace_id": made}
    town.send(town.admin, "POST", "/v1/admin/users", {**body, "username": "bob"})
    changes: list[tuple[str, str, object]] = [
        ("POST", "/v1/admin/users", body),
        ("PATCH", f"{path}/{made}", {"disabled": True}),
        ("PATCH", f"{path}/{other}", {"name": f"x{turn}-{random.getrandbits(64):x}"}),
        ("PUT", f"/v1/admin/budgets/workspace:{made}", {"amount_usd": "1", "period": "day"}),
        ("DELETE", f"{path}/{made}", None),
        ("POST", "/v1/auth/login", {"username": "bob", "password": "a-password", "workspace": names[0]}),
    ]
    threads = [threading.Thread(target=town.send, args=(town.admin, *change)) for change in changes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    town.send(town.admin, "DELETE", f"{path}/{other}")
