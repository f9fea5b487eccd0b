"""The cost of what an application asks its database for: no time, but work that is the same each time.

With PostgreSQL it is the pages that a statement touches, by EXPLAIN ANALYZE in a savepoint just before it runs; of its
plan for these values, and of the plan that a prepared statement comes to have for any. With SQLite it is steps of its
machine.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.pq import TransactionStatus

EXPLAINED = ("SELECT", "UPDATE", "DELETE", "WITH")
PLANS = ("force_custom_plan", "force_generic_plan")
STEPS = 100  # of SQLite's machine, between two counts
_VALUE = re.compile(r"%\((\w+)\)s")


@dataclass
class Spy:
    """Costs of the statements that were run while it is `on`."""

    on: bool = False
    steps: int = 0
    plans: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)  # pages, statement, plan

    def cost(self, work: Callable[[], object]) -> int:
        """Do this, and tell what all its statements came to."""
        self.plans.clear()
        self.steps, self.on = 0, True
        try:
            work()
        finally:
            self.on = False
        return self.steps + sum(pages for pages, _, _ in self.plans)

    def told(self) -> str:
        """The dearest statement of the last work, and its plan."""
        if not self.plans:
            return f"{self.steps} hundreds of steps"
        pages, sql, plan = max(self.plans, key=lambda each: each[0])
        return f"{pages} pages: {' '.join(sql.split())}\n{outline(plan)}"


def outline(plan: dict[str, Any], depth: int = 0) -> str:
    """A plan as lines."""
    names = (
        "Node Type",
        "Relation Name",
        "Index Name",
        "Actual Rows",
        "Rows Removed by Filter",
        "Shared Hit Blocks",
    )
    line = "  " * depth + " · ".join(f"{name} {plan[name]}" for name in names if name in plan)
    return "\n".join([line, *(outline(inner, depth + 1) for inner in plan.get("Plans", ()))])


def watch(engine: sa.Engine) -> Spy:
    """Watch every connection that the engine makes from now on."""
    spy = Spy()
    sqlite = engine.dialect.name == "sqlite"
    sa.event.listen(engine, "connect", (_count_steps if sqlite else _explain)(spy))
    return spy


def _count_steps(spy: Spy) -> Callable[[Any, Any], None]:
    def count() -> int:
        spy.steps += spy.on
        return 0

    return lambda connection, _: connection.set_progress_handler(count, STEPS)


_numbers = itertools.count()


def _explain(spy: Spy) -> Callable[[Any, Any], None]:
    class Explained(psycopg.Cursor[Any]):
        kinds = PLANS[:1]  # only an exchange prepares

        def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
            if spy.on and str(query).lstrip().startswith(EXPLAINED):
                spy.plans.append(max(self._plans(str(query), params), key=lambda plan: plan[0]))
            return super().execute(query, params, **options)

        def _plans(self, query: str, params: Any) -> list[tuple[int, str, dict[str, Any]]]:
            sql, values = _numbered(query, params)
            literals = psycopg.ClientCursor(self.connection).mogrify(
                f"({', '.join(['%s'] * len(values))})" if values else "", values or None
            )
            found = []
            idle = self.connection.info.transaction_status == TransactionStatus.IDLE
            for kind in self.kinds:
                self._say("BEGIN" if idle else "SAVEPOINT spied")
                self._say(f"SET LOCAL plan_cache_mode = {kind}")
                name = f"spied_{next(_numbers)}"  # one that failed stays prepared after the rollback
                self._say(f"PREPARE {name} AS {sql}")
                self._say(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) EXECUTE {name} {literals}")
                plan = self.fetchall()[0][0][0]["Plan"]
                found.append((plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], query, plan))
                self._say(f"DEALLOCATE {name}")
                self._say("ROLLBACK" if idle else "ROLLBACK TO spied")
            return found

        def _say(self, sql: str) -> None:
            super().execute(sql, prepare=False)

    class Prepared(Explained):
        kinds = PLANS

    def change(connection: Any, _: Any) -> None:
        connection.cursor_factory = Explained
        # The statements come one by one, to be explained between them.
        connection.exchange = lambda calls: [Prepared(connection).execute(*call) for call in calls]

    return change


def _numbered(query: str, params: Any) -> tuple[str, list[Any]]:
    """A statement whose values have numbers, as PREPARE wants it; and the values."""
    names = list(dict.fromkeys(_VALUE.findall(query)))
    sql = _VALUE.sub(lambda found: f"${names.index(found[1]) + 1}", query)
    return sql.replace("%%", "%") if params else sql, [params[name] for name in names]
