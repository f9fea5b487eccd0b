"""Random operations in random order: no cap is exceeded, and the ledger proves it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from service.errors import BudgetExceeded
from service.store import holds
from service.store.holds import Hold
from service.types import Run, Usage, now_ms
from service.usage import budget_windows
from service.usage.caps import DAY
from service.usage.estimate import Reserved
from service.usage.reservation import sweep_holds
from tests.usage import whole_check
from tests.usage.house import ASKED, SONNET, TABLE, House, a_run, end_overrides

EXAMPLES = int(os.environ.get("MONEY_EXAMPLES", "100"))  # 10,000 for the whole proof
AMOUNTS = st.integers(0, 60_000_000)
SCOPES = st.sampled_from(
    ["service", "user:usr_0", "user:usr_1", "agent:support", "key:key_1", "session:ses_1"]
    + [f"end_user:key_1/{name}" for name in ("*", "a/day/0", "b")]
)
END_USERS = st.sampled_from([None, "a/day/0", "b"])
PERIODS = st.sampled_from(["day", "month", "total"])


@cache
def empty() -> bytes:
    """A database with its tables, made once: it is a third of the time of a sequence."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "empty.db"
        House(f"sqlite:///{file}").db.close()
        return file.read_bytes()


class Money(RuleBasedStateMachine):
    """Stripes are used on SQLite too here, so that they are drawn together in many ways."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        file = Path(self.folder.name) / "money.db"
        file.write_bytes(empty())
        caps = {"user_day": 30_000_000, "service_day": 50_000_000}
        self.house = House(f"sqlite:///{file}", patience=0, create=False, **caps)
        self.patch = pytest.MonkeyPatch()
        self.under_way: list[Reserved] = []
        self.trees: list[tuple[Run, Hold]] = []  # that their workers have not ended
        self.billed = self.runs = 0
        self.before: dict[tuple[str, str], int | None] = {}  # caps that come back, by scope and period

    @initialize(stripes=st.integers(1, 4), final_after=st.sampled_from([0, budget_windows.FINAL_AFTER]))
    def begin(self, stripes: int, final_after: int) -> None:
        self.house.budgets.windows.stripes = stripes
        self.patch.setattr(
            budget_windows, "FINAL_AFTER", final_after
        )  # how much of the ledger is summed before the lock

    @rule(
        user=st.integers(0, 1),
        key=st.booleans(),
        session=st.booleans(),
        end_user=END_USERS,
        tokens=st.integers(1, ASKED),
    )
    def hold(self, user: int, key: bool, session: bool, end_user: str | None, tokens: int) -> None:
        self.runs += 1  # its id picks the stripe, so it must be the same when the example is run again
        name, who = f"run_{self.runs}", f"usr_{user}"
        places: dict[str, Any] = {"key": "key_1" if key else None, "session": "ses_1" if session else None}
        run = a_run(who, id=name, end_user=end_user, **places)
        with contextlib.suppress(BudgetExceeded):
            self.under_way.append(self.house.reserve(run, max_tokens=tokens, fewest=min(64, tokens)))

    @rule(user=st.integers(0, 1), key=st.booleans(), end_user=END_USERS, amount=st.integers(1, 40_000_000))
    def plant(self, user: int, key: bool, end_user: str | None, amount: int) -> None:
        self.runs += 1
        run = a_run(
            f"usr_{user}",
            id=f"run_{self.runs}",
            end_user=end_user,
            key="key_1" if key else None,
            session="ses_1",
        )
        with contextlib.suppress(BudgetExceeded):
            self.trees.append((run, self.house.plant(run, amount)))

    @rule(data=st.data(), tokens=st.integers(1, ASKED))
    def hold_in_tree(self, data: st.DataObject, tokens: int) -> None:
        if self.trees:
            run, tree = data.draw(st.sampled_from(self.trees))
            with contextlib.suppress(BudgetExceeded):
                self.under_way.append(
                    self.house.reserve(run, max_tokens=tokens, fewest=min(64, tokens), tree=tree)
                )

    @rule(data=st.data(), crash=st.booleans())
    def end_tree(self, data: st.DataObject, crash: bool) -> None:
        """A tree ends, or its worker dies: its calls may be settled later in either case."""
        if self.trees:
            _, tree = self.trees.pop(data.draw(st.integers(0, len(self.trees) - 1)))
            if not crash:
                self.house.finish(self.house.spending.end_tree(tree))
                self.house.finish(self.house.spending.end_tree(tree))

    @rule(data=st.data(), prompt=st.integers(0, 500), share=st.floats(0, 1))
    def settle(self, data: st.DataObject, prompt: int, share: float) -> None:
        if self.under_way:
            reserved = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
            used = Usage(prompt, int(reserved.max_tokens * share))
            self.billed += SONNET.cost(used)
            self.house.settle(reserved, used)
            self.house.settle(reserved, used)  # once more, as after a commit whose answer was lost

    @rule(data=st.data(), billed=st.booleans())
    def crash(self, data: st.DataObject, billed: bool) -> None:
        """A worker dies with a call under way, which the provider may have done."""
        if self.under_way:
            reserved = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
            self.billed += SONNET.cost(Usage(400, reserved.max_tokens)) if billed else 0

    @rule()
    def sweep(self) -> None:
        """Everything left behind; what is under way belongs to nobody the sweep knows, so it waits."""
        if not self.under_way and not self.trees:
            sweep_holds(self.house.db, self.house.spending, older_than=-1)
            assert self.house.db.query(holds.every) == []

    @rule(scope=SCOPES, period=PERIODS, amount=AMOUNTS | st.none())
    def change(self, scope: str, period: str, amount: int | None) -> None:
        self.house.budgets.put(scope, period, amount)  # type: ignore[arg-type]
        self.before.pop((scope, period), None)

    @rule(scope=SCOPES, period=PERIODS, amount=AMOUNTS | st.none())
    def override(self, scope: str, period: str, amount: int | None) -> None:
        self.before.setdefault((scope, period), self.amount(scope, period))
        self.house.budgets.put(scope, period, amount, until=now_ms() + DAY)  # type: ignore[arg-type]

    @rule()
    def end(self) -> None:
        """The time of every override passes, and each cap is what it was."""
        end_overrides(self.house)
        assert {place: self.amount(*place) for place in self.before} == self.before
        self.before.clear()

    def amount(self, scope: str, period: str) -> int | None:
        """Amount that was set on a scope itself; None: there is none, or its default."""
        found = [state.cap for state in self.house.budgets.of([scope]) if state.cap.period == period]
        return next((cap.amount for cap in found if not cap.default), None)

    def teardown(self) -> None:
        """The books tell of every moment, so they are looked at in the end."""
        self.patch.undo()
        checked = self.house.check()
        whole = whole_check.check(self.house.db, TABLE)
        self.house.db.close()
        self.folder.cleanup()
        assert checked.faults == whole.faults == []
        assert self.billed <= checked.spent + checked.held


Money.TestCase.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestMoney = Money.TestCase
