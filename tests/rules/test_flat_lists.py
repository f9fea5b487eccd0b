"""No route, command or chore costs more because there is much: a year of runs beside a month of a beginner's.

What is compared is work, not time: see `tests/store/spied.py`. The routes are those of `/openapi.json`, each with every
filter and every pair of them, so one that is added tomorrow is looked at too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import Result
from flask import Flask

from service.app import create_app
from service.jobs.upkeep import tidy
from service.store import holds, ledger, ownership, runs, token_families, webhooks
from service.store.schema import metadata
from service.types import RunStatus, now_ms
from service.wiring import Services
from tests.conftest import Model
from tests.made import settings_in
from tests.store.filled import Known, fill
from tests.store.spied import Spy, watch
from tests.usage.conftest import postgres_url

__all__ = ["postgres_url"]
# As many as the planner needs to choose as it does at a million.
SMALL, LARGE, YEAR = 1_000, 10_000, 1_000_000
MORE = 3  # times: the most that anything may cost more
# Pages, or hundreds of SQLite's steps, that are no growth: a level more of each index.
SLACK = 80
AGENTS = ("assistant", "rare", "retired")
SCOPED = {"root": "a key of root", "ada": "a key of ada"}  # keys that name few agents
PATHS = {"run_id": "run", "session_id": "session", "agent": "assistant"}
# Every filter that a list has, with the values that are asked for.
FILTERS: dict[str, tuple[str, ...]] = {
    "status": tuple(RunStatus),
    "agent": AGENTS,
    "session_id": ("ses_none", "<session>"),
    "scope": ("own", "all"),
    "cursor": ("<cursor>",),
    "limit": (),
    "after": (),
}
OF_APPROVALS = {"status": ("pending", "approved", "denied", "cancelled")}
# What reads as much as it is asked about, and why that is no fault.
REPORTS = {
    "/v1/usage": "sums over the time that is asked for",
}
# Each search reads at most so many titles, however many sessions there are: see `service.store.sessions.MOST`.
SEARCHES = {"/v1/sessions": "q"}
SEARCHED = 15_000


@dataclass
class Place:
    """One application over a filled database."""

    app: Flask
    spy: Spy
    known: Known
    tokens: dict[str, str]

    @property
    def services(self) -> Services:
        found: Services = self.app.extensions["slipway"]
        return found

    def get(self, who: str, path: str, query: dict[str, str]) -> int:
        """What an answer costs."""
        path = path.format(**{name: getattr(self.known, known, known) for name, known in PATHS.items()})
        filled = {"<session>": self.known.session, "<cursor>": self._cursor(path)}
        query = {name: filled.get(value, value) for name, value in query.items()}
        client, headers = self.app.test_client(), {"Authorization": f"Bearer {self.tokens[who]}"}

        def ask() -> None:
            with client.get(path, query_string=query, headers=headers, buffered=True) as answer:
                assert answer.status_code in (200, 403, 404), (path, query, answer.text)

        return self.spy.cost(ask)

    def _cursor(self, path: str) -> str:
        """A place in the middle of a list."""
        if path.startswith("/v1/sessions/"):
            return "2"
        kind = path.split("/")[2]
        prefix = {"sessions": "ses", "approvals": "apr"}.get(kind, "run")
        return f"{prefix}{self.known.run[3:]}"

    def command(self, *words: str) -> int:
        """What a command costs."""

        def run() -> None:
            done: Result = self.app.test_cli_runner().invoke(args=list(words))
            assert done.exit_code == 0, (words, done.output, done.exception)

        return self.spy.cost(run)


@pytest.fixture(
    scope="module",
    params=[
        ("sqlite", LARGE),
        ("postgresql", LARGE),
        pytest.param(("sqlite", YEAR), marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
        pytest.param(("postgresql", YEAR), marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
    ],
    ids=lambda param: f"{param[0]}-{param[1]}",
)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, model: Model
) -> Iterator[tuple[Place, Place]]:
    """A small place and a large one, over databases of one kind."""
    kind, large = request.param
    with ExitStack() as stack:
        made = []
        for count in (SMALL, large):
            folder = tmp_path_factory.mktemp(f"filled-{count}")
            url = f"sqlite:///{folder}/slipway.db"
            if kind == "postgresql":
                url = _database(request.getfixturevalue("postgres_url"), f"filled_{count}")
            made.append(stack.enter_context(_Opened(folder, url, model.url, count)).place)
        yield made[0], made[1]


def _database(server: str, name: str) -> str:
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE IF EXISTS {name}"))
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    return server.replace("/postgres?", f"/{name}?")


class _Opened:
    """Makes a place, and closes it."""

    def __init__(self, folder: Path, url: str, model_url: str, count: int) -> None:
        no_limit = dict.fromkeys(("LIMIT_READS", "LIMIT_WRITES", "LIMIT_RUNS", "LIMIT_LOGIN"), "none")
        parts = {"DATABASE_URL": url, "ANTHROPIC_BASE_URL": model_url}
        self._app = create_app(settings_in(folder, **parts, **no_limit))
        services: Services = self._app.extensions["slipway"]
        spy = watch(services.db.engine)
        metadata.create_all(services.db.engine)
        users = {
            name: services.users.create(name, f"{name}-password", role)
            for name, role in (("root", "admin"), ("ada", "user"))
        }
        known = fill(services.db.engine, count, heavy=users["ada"].id)
        tokens = {name: services.tokens.begin(user).access_token for name, user in users.items()}
        for name, called in SCOPED.items():
            key = services.keys.create(users[name].id, "key", ("agents:rar*", "agents:none"), None)
            tokens[called] = key["key"]
        self.place = Place(self._app, spy, known, tokens)

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.place.services.close()


def compare(
    pair: tuple[Place, Place], what: str, cost: Callable[[Place], int], slack: int = SLACK
) -> str | None:
    """What is wrong, if the large place does more work than it may."""
    small, large = cost(pair[0]), cost(pair[1])
    if large <= MORE * small + slack:
        return None
    return f"{what}: {small} -> {large}; {pair[1].spy.told()}"


def asked_for(who: str, path: str, names: list[str]) -> Iterator[dict[str, str]]:
    """No filter, each filter and every pair of filters; a key with scopes has a filter already."""
    values = FILTERS | (OF_APPROVALS if path == "/v1/approvals" else {})
    filters = [] if who in SCOPED.values() else [name for name in names if name != "cursor"]
    yield {}
    for some in (*combinations(names, 1), *combinations(filters, 2)):
        for chosen in product(*(values[name] for name in some)):
            yield dict(zip(some, map(str, chosen), strict=True))


def test_every_list_costs_what_it_shows(pair: tuple[Place, Place]) -> None:
    with pair[0].app.test_client().get("/openapi.json", buffered=True) as answer:
        paths = answer.get_json()["paths"]
    wrong, looked_at = [], 0
    for path, operations in paths.items():
        if "get" not in operations or not path.startswith("/v1/") or path in REPORTS:
            continue
        parameters = operations["get"].get("parameters", [])
        names = [each["name"] for each in parameters if each["in"] == "query"]
        names = [name for name in names if name != SEARCHES.get(path)]
        asked = [(who, query) for who in pair[0].tokens for query in asked_for(who, path, names)]
        for who, query in asked:
            looked_at += 1
            wrong.append(compare(pair, f"{who} {path} {query}", lambda place: place.get(who, path, query)))  # noqa: B023
    assert looked_at > 200
    found = [line for line in wrong if line]
    assert not found, "\n".join(found)


def test_a_search_reads_no_more_than_what_one_user_may_have(pair: tuple[Place, Place]) -> None:
    """Of titles: the small place has few, so the bound is the same for both."""
    for path, name in SEARCHES.items():
        for query in ({name: "needle"}, {name: "needle", "scope": "all"}, {name: "nowhere", "scope": "all"}):
            assert pair[1].get("root", path, query) < SEARCHED, pair[1].spy.told()


COMMANDS = (
    *(("runs", "list", "--status", status) for status in RunStatus),
    *(("runs", "list", "--agent", agent) for agent in AGENTS),
    *(("runs", "list", "--status", "failed", "--agent", agent) for agent in AGENTS),
    ("runs", "list", "--session", "<session>"),
    ("runs", "dead"),
    ("runs", "show", "<run>"),
    ("runs", "replay", "<run>"),
    ("runs", "feedback"),
    ("runs", "feedback", "--agent", "rare"),
    ("runs", "feedback", "--score", "-1"),
    ("keys", "list", "user-7"),
    ("users", "disable", "user-7"),
    ("budgets", "set", "session:ses_1", "1", "--period", "total"),
    ("budgets", "set", "user:<user>", "1", "--period", "month"),
)
# Commands that are not looked at here, and why.
UNCOUNTED = {
    "agents": "no table is read for them but the runs they make",
    "prices": "no table is read for them",
    "ledger": "reads all of the books: a report",
    "users list": "prints everybody",
    "users add": "by the name's index, as in tests/cli",
    "users password": "by the name's index, as in tests/cli",
    "users webhook-secret": "by the name's index, as in tests/cli",
    "keys add": "by the user's index, as in tests/cli",
    "keys revoke": "by the key's index, as in tests/cli",
    "budgets list": "prints every cap",
    "budgets webhook-secret": "no table is read for it",
    "runs cancel": "one run, by its id",
    "runs resume": "runs by their ids; `--all-dead` as `runs dead`",
}


def test_no_command_costs_more(pair: tuple[Place, Place]) -> None:
    wrong = []
    for words in COMMANDS:

        def cost(place: Place, words: tuple[str, ...] = words) -> int:
            named = {f"<{name}>": value for name, value in place.known._asdict().items()}
            for name, value in named.items():
                words = tuple(word.replace(name, value) for word in words)
            return place.command(*words)

        wrong.append(compare(pair, " ".join(words), cost))
    found = [line for line in wrong if line]
    assert not found, "\n".join(found)


def test_every_command_is_looked_at_or_says_why_not(pair: tuple[Place, Place]) -> None:
    looked_at = {" ".join(words[:2]) for words in COMMANDS}
    for name, group in pair[0].app.cli.commands.items():
        for command in getattr(group, "commands", {}):
            assert {name, f"{name} {command}"} & (looked_at | set(UNCOUNTED)), f"{name} {command}"


def chores(place: Place) -> dict[str, Callable[[], object]]:
    """What is done again and again, by its name."""
    services = place.services
    db = services.db
    day_ago = now_ms() - 86_400_000
    return {
        "upkeep": lambda: tidy(db, 400),
        "abandoned runs": lambda: db.query(lambda tx: runs.abandoned(tx, 20)),
        "waiting runs": lambda: db.query(lambda tx: runs.waiting(tx, 200)),
        "runs of a worker": lambda: db.query(lambda tx: ownership.held(tx, "wrk_1")),
        "webhooks that are due": lambda: db.query(lambda tx: webhooks.due(tx, now_ms(), 100)),
        "batches": lambda: services.batches.tick(),
        "holds that were left behind": lambda: db.query(lambda tx: holds.left_behind(tx, day_ago, 100)),
        "revocations": lambda: db.query(
            lambda tx: token_families.distrusted(tx, families_since=day_ago, keys_since=day_ago)
        ),
        "a cap's window": lambda: db.query(lambda tx: ledger.spent(tx, "session:ses_1", 0)),
    }


def test_no_chore_costs_more(pair: tuple[Place, Place]) -> None:
    wrong = []
    for place in pair:  # what is due is done; what is looked at is a turn that finds nothing
        tidy(place.services.db, 400)
    for name in chores(pair[0]):
        wrong.append(compare(pair, name, lambda place: place.spy.cost(chores(place)[name]), slack=20))  # noqa: B023
    found = [line for line in wrong if line]
    assert not found, "\n".join(found)


def test_a_turn_costs_no_more(pair: tuple[Place, Place]) -> None:
    """A run in a session, with its key, its hold, its steps and its end; and the same key once more."""

    def turn(place: Place) -> int:
        client = place.app.test_client()
        headers = {"Authorization": f"Bearer {place.tokens['ada']}"}

        def ask() -> None:
            begun = client.post("/v1/sessions", json={"agent": "assistant"}, headers=headers, buffered=True)
            assert begun.status_code == 201, begun.text
            body = {"input": "Hello", "session_id": begun.get_json()["id"]}
            for _ in range(2):
                answer = client.post(
                    "/v1/agents/assistant/invoke",
                    json=body,
                    headers={**headers, "Idempotency-Key": "once"},
                    buffered=True,
                )
                assert answer.status_code == 200, answer.text

        return place.spy.cost(ask)

    assert compare(pair, "a turn", turn) is None
