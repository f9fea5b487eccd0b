"""Settled calls by the thousand, for reports: rows of the ledger, and their sums as a report must have them."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from service.ids import new_id
from service.store import savings
from service.store.database import Database, InsertOnce, Transaction
from service.store.savings import Key
from service.store.schema import SAVED, SUMS, ledger, users, workspaces
from service.store.usage import DAY_MS, FIGURES, HOUR_MS, UsageQuery, order_of
from service.types import DEFAULT_WORKSPACE, now_ms

TODAY = now_ms() // DAY_MS
OTHER = "wsp_" + "1" * 26
AGENTS, MODELS = ("analyst", "support", "support_two"), ("m-large", "m-small")
_BLANK = dict.fromkeys(column.name for column in ledger.columns)


class Call(NamedTuple):
    called_at: int
    user: str = "usr_ada"
    agent: str = "support"
    model: str = "m-small"
    key: str | None = None
    cost: int = 7
    batched: int | None = None

    def row(self) -> dict[str, Any]:
        """The row of the ledger that a report reads."""
        about = {"entry_id": new_id("hld"), "kind": "settle", "account": "upstream", "at": now_ms()}
        who = {"user_id": self.user, "agent": self.agent, "model": self.model, "key_id": self.key}
        tokens = {"input_tokens": 3, "output_tokens": 2, "cache_read_tokens": 1, "cache_creation_tokens": 0}
        money = {"amount_nano": self.cost, "saved_nano": self.cost // 2}
        if self.batched is not None:  # else settled by a release before
            money["batch_saved_nano"] = self.batched
        return {
            **_BLANK,
            **about,
            **who,
            **tokens,
            **money,
            "called_at": self.called_at,
            "end_user": self.end_user,
        }

    def group(self, name: str) -> int | str:
        """The value of one of the report's groups."""
        if name in ("day", "hour"):
            return self.called_at // (DAY_MS if name == "day" else HOUR_MS)
        texts = {"agent": self.agent, "model": self.model, "user": self.user, "key": self.key or ""}
        return {**texts, "end_user": self.end_user or "", "workspace": self.workspace}[name]

    @property
    def end_user(self) -> str | None:
        return None if self.key is None else f"guest of {self.key}"

    @property
    def workspace(self) -> str:
        """Every third of the numbered users is in another one."""
        number = self.user.removeprefix("usr_")
        return OTHER if number.isdecimal() and int(number) % 3 == 2 else DEFAULT_WORKSPACE

    @property
    def sums(self) -> tuple[int, ...]:
        return (1, 3, 2, 1, 0, self.cost, self.cost // 2, self.batched or 0, *[0] * len(SAVED))


class Answer(Call):
    """An answer without a call: of `layer` 0 to 2, in the order of `SAVED`, which would have cost `cost`."""

    @property
    def layer(self) -> int:
        return self.called_at % 3

    @property
    def sums(self) -> tuple[int, ...]:
        saved = [0] * len(SAVED)
        saved[self.layer], saved[self.layer + 3] = 1, self.cost
        return (*[0] * len(SUMS), *saved)

    def key_of_sums(self) -> Key:
        hour = self.called_at // HOUR_MS
        return (hour, self.user, self.key or "", self.end_user or "", self.agent, self.model)


def answer(db: Database, answers: Iterable[Answer]) -> None:
    """Add the sums of answers, as two processes do."""
    processes: list[dict[Key, list[int]]] = [{}, {}]
    for number, each in enumerate(answers):
        sums = processes[number % 2].setdefault(each.key_of_sums(), [0] * len(SAVED))
        sums[:] = map(sum, zip(sums, each.sums[len(SUMS) :], strict=True))
    for found in filter(None, processes):
        db.transact(lambda tx, found=found: savings.add(tx, found))  # type: ignore[misc]


def book(db: Database, calls: Iterable[Call]) -> None:
    rows = [call.row() for call in calls]
    members = {call.user: _user(call.user, OTHER) for call in calls if call.workspace == OTHER}

    def work(tx: Transaction) -> None:
        tx.execute(sa.insert(ledger), rows)
        for user in members.values():
            tx.execute(InsertOnce(users), user)
        if members:
            named = {"id": OTHER, "name": "other", "disabled": False, "created_at": 1}
            tx.execute(InsertOnce(workspaces), named)

    db.transact(work)


def _user(user_id: str, workspace_id: str) -> dict[str, Any]:
    row = {"id": user_id, "workspace_id": workspace_id, "username": user_id, "password_hash": ""}
    return {**row, "role": "user", "disabled": False, "created_at": 1}


def some(count: int, first: int, end: int, users: int = 5, seed: int = 1) -> list[Call]:
    """`count` calls of `first` <= day < `end`, many of them on midnight or next to it."""
    chance = random.Random(seed)
    calls = []
    for _ in range(count):
        at = chance.randrange(first, end) * DAY_MS + chance.choice(
            (0, 1, DAY_MS - 1, chance.randrange(DAY_MS))
        )
        user = chance.randrange(users)
        key = chance.choice((None, f"key_{user}"))
        call = Call(at, f"usr_{user:04}", chance.choice(AGENTS), chance.choice(MODELS), key)
        batched = chance.choice((None, 0, chance.randrange(1_000)))
        calls.append(call._replace(cost=chance.randrange(1_000), batched=batched))
    return calls


def answers(count: int, first: int, end: int, seed: int = 1) -> list[Answer]:
    """`count` answers of `first` <= day < `end`."""
    return [Answer(*call) for call in some(count, first, end, seed=seed)]


def expected(calls: Iterable[Call], asked: UsageQuery) -> list[tuple[Any, ...]]:
    """Sum the calls as the report must: the values of the groups, then `FIGURES`."""
    sums: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0] * len(FIGURES))
    for call in calls:
        at = call.called_at // HOUR_MS * HOUR_MS if isinstance(call, Answer) else call.called_at
        if asked.since <= at < asked.until and asked.visible.covers(
            {"user_id": call.user, "agent": call.agent, "workspace_id": call.workspace}
        ):
            group = sums[tuple(call.group(name) for name in order_of(asked.by))]
            for place, value in enumerate(call.sums):
                group[place] += value
    if not asked.by and not sums:
        return [(0,) * len(FIGURES)]
    return sorted((*key, *figures) for key, figures in sums.items())


def told(rows: Sequence[Any], asked: UsageQuery) -> list[tuple[Any, ...]]:
    """The rows of a report in the form of `expected`."""
    return [tuple(row[name] for name in (*order_of(asked.by), *FIGURES)) for row in rows]
