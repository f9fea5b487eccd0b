"""Cost of routes, commands and chores beside a year of runs and beside a beginner's month: the same.

What is compared is work, not time: see `tests/store/spied.py`. The routes are those of `/openapi.json`, each with every
filter and every pair of them, so one that is added tomorrow is looked at too.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import combinations, product

import pytest

from service.jobs.upkeep import delete_expired
from service.store import erasures, holds, ledger, ownership, runs, schedules, sweep, token_families, webhooks
from service.types import DEFAULT_WORKSPACE, RunStatus, now_ms, rfc3339
from tests.conftest import Model
from tests.rules.places import SCOPED, Opened, Pair, Place, compare, database, rest, tell
from tests.store.filled import ACME
from tests.usage.conftest import postgres_url

__all__ = ["postgres_url"]
pytestmark = pytest.mark.timeout(1800)  # days are summed up statement by statement: minutes on a busy machine
# As many as the planner needs to choose as it does at a million.
SMALL, LARGE, YEAR = 1_000, 10_000, 1_000_000
AGENTS = ("assistant", "rare", "retired")
# Every filter that a list has, with the values that are asked for.
FILTERS: dict[str, tuple[str, ...]] = {
    "status": tuple(RunStatus),
    "agent": AGENTS,
    "session_id": ("ses_none", "<session>"),
    "schedule": ("sch_none", "<schedule>"),
    "end_user": ("nobody",),
    "key_id": (f"key_{'0' * 26}",),
    "scope": ("own", "all"),
    "cursor": ("<cursor>",),
    "limit": (),
    "workspace": (ACME, DEFAULT_WORKSPACE),
    "username": ("nobody", "user-7"),
    "after": (),
    "order": (),
    "after_id": (),
    "before_id": (),
    "stream": (),
    "starting_after": (),
    "include": (),
    "include_obfuscation": (),
    "action": ("sign_in", "user.role", "cap.set"),
    "user": ("usr_none", "<user>"),
    "subject": ("user:usr_none", "user:<user>"),
    "from": ("2020-01-01",),
    "to": ("2120-01-01", "2020-01-01"),
}
ONE_OF = ({"action", "user", "subject"}, {"session_id", "schedule"})  # of which a list takes one
# Filters that mean something else on one path.
OF_PATH: dict[str, dict[str, tuple[str, ...]]] = {
    "/v1/approvals": {"status": ("pending", "approved", "denied", "cancelled")},
    "/v1/admin/budgets": {"scope": ("service", "user:<user>")},
}
# What reads as much as it is asked about, and why that is no fault.
REPORTS = {
    "/v1/usage": "sums over the time that is asked for",
    "/v1/admin/health": "counts what waits; read once in two seconds, however many look, within a time",
    "/v1/admin/users/{user_id}/export": "reads all of one user",
    "/v1/admin/audit/verify": "reads all rows, within a time",
    "/v1/agents/{agent}/chat": "speaks WebSocket",
}
# Each search reads at most so many titles, however many sessions there are: see `service.store.sessions.MAX_SESSIONS`.
SEARCHES = {"/v1/sessions": "q"}
SEARCHED = 15_000
MORE_OF_USAGE = 5


@pytest.fixture(
    scope="module",
    params=[
        ("sqlite", LARGE),
        ("postgresql", LARGE),
        pytest.param(("sqlite", YEAR), marks=pytest.mark.slow),
        pytest.param(("postgresql", YEAR), marks=pytest.mark.slow),
    ],
    ids=lambda param: f"{param[0]}-{param[1]}",
)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, model: Model
) -> Iterator[Pair]:
    """A small place and a large one, over databases of one kind."""
    kind, large = request.param
    with ExitStack() as stack:
        made = []
        for count in (SMALL, large):
            folder = tmp_path_factory.mktemp(f"filled-{count}")
            stack.callback(shutil.rmtree, folder)  # gigabytes: pytest keeps what is there
            url = f"sqlite:///{folder}/slipway.db"
            if kind == "postgresql":
                url = database(request.getfixturevalue("postgres_url"), f"filled_{count}")
            made.append(stack.enter_context(Opened(folder, url, model.url, count)).place)
        yield made[0], made[1]


def asked_for(who: str, path: str, names: list[str]) -> Iterator[dict[str, str]]:
    """No filter, each filter and every pair of filters; a key with scopes has a filter already."""
    values = FILTERS | OF_PATH.get(path, {})
    filters = [] if who in SCOPED.values() else [name for name in names if name != "cursor"]
    yield {}
    for some in (*combinations(names, 1), *combinations(filters, 2)):
        if any(len(one.intersection(some)) > 1 for one in ONE_OF):
            continue
        for chosen in product(*(values[name] for name in some)):
            yield dict(zip(some, map(str, chosen), strict=True))


def test_list_costs_grow_with_the_page_only(pair: Pair) -> None:
    with pair[0].app.test_client().get("/openapi.json", buffered=True) as answer:
        paths = answer.get_json()["paths"]
    wrong: list[str | None] = []
    print(f"\n| {pair[1].services.infra.db.engine.dialect.name} | small | large |")
    for path, operations in paths.items():
        if "get" not in operations or not path.startswith("/v1/") or path in REPORTS:
            continue
        parameters = operations["get"].get("parameters", [])
        names = [each["name"] for each in parameters if each["in"] == "query"]
        names = [name for name in names if name != SEARCHES.get(path)]
        asked = [(who, query) for who in pair[0].tokens for query in asked_for(who, path, names)]
        costs = [
            compare(pair, f"{who} {path} {query}", lambda place: place.get(who, path, query))  # noqa: B023
            for who, query in asked
        ]
        tell(costs)
        wrong += (cost.fault() for cost in costs)
    assert len(wrong) > 200
    found = [line for line in wrong if line]
    assert not found, "\n".join(found)


def test_usage_of_a_year_costs_no_more_on_a_large_database(pair: Pair) -> None:
    """By what does not grow with the users, once upkeep has summed the days up."""
    for place in pair:
        rest(place)
    day = 86_400_000
    span = {"from": rfc3339(now_ms() - 360 * day)[:10], "to": rfc3339(now_ms() - 2 * day)[:10]}
    wrong = []
    for by in ("", "day", "agent", "model", "day,agent,model"):
        query = {**span, "group_by": by} if by else span
        costs = compare(pair, f"root /v1/usage by {by}", lambda place: place.get("root", "/v1/usage", query))  # noqa: B023
        tell([costs])
        wrong.append(costs.fault(times=MORE_OF_USAGE))
    found = [line for line in wrong if line]
    assert not found, "\n".join(found)


def test_search_reads_a_bounded_number_of_rows(pair: Pair) -> None:
    """Of titles: the small place has few, so the bound is the same for both."""
    for path, name in SEARCHES.items():
        for query in ({name: "needle"}, {name: "needle", "scope": "all"}, {name: "nowhere", "scope": "all"}):
            assert pair[1].get("root", path, query) < SEARCHED, pair[1].spy.told()


COMMANDS = (
    *(("runs", "list", "--status", status) for status in RunStatus),
    *(("runs", "list", "--agent", agent) for agent in AGENTS),
    *(("runs", "list", "--status", "failed", "--agent", agent) for agent in AGENTS),
    ("runs", "list", "--session", "<session>"),
    ("runs", "list", "--schedule", "<schedule>"),
    ("schedules", "list"),
    ("schedules", "next", "<schedule>"),
    ("schedules", "missed", "<schedule>"),
    ("schedules", "pause", "<schedule>"),
    ("schedules", "resume", "<schedule>"),
    ("runs", "dead"),
    ("evals", "from-run", "<run>"),
    ("evals", "from-feedback"),
    ("runs", "show", "<run>"),
    ("runs", "replay", "<run>"),
    ("runs", "feedback"),
    ("runs", "feedback", "--agent", "rare"),
    ("runs", "feedback", "--score", "-1"),
    ("workspaces", "list"),
    ("workspaces", "disable", "acme"),
    ("keys", "list", "user-7"),
    ("users", "disable", "user-7"),
    ("users", "show", "user-7"),
    ("users", "logout", "user-7"),
    ("budgets", "set", "session:<fixed_session>", "1", "--period", "total"),
    ("budgets", "set", "user:<user>", "1", "--period", "month"),
)
# Commands that are not looked at here, and why.
UNCOUNTED = {
    "agents": "no table is read for them but the runs they make",
    "evals run": "no table of this service is read",
    "evals check": "no table is read",
    "knowledge": "by the workspace's index, as in tests/cli",
    "evals from-run": "reads the runs that are named, as in tests/cli",
    "evals from-feedback": "reads one page, as `runs feedback` does",
    "prices": "no table is read for them",
    "audit": "reads all of the audit: a proof, or an export",
    "ledger": "reads all of the books: a report",
    "keyring": "reads all of another database",
    "mcp": "reads the tools that the file of servers allows",
    "usage": "sums over the time that is asked for",
    "users list": "prints everybody",
    "workspaces add": "by the name's index, as in tests/cli",
    "workspaces guardrails": "by the name's index, as in tests/cli",
    "workspaces rename": "by the name's index, as in tests/cli",
    "workspaces delete": "by the name's index, as in tests/cli",
    "users add": "by the name's index, as in tests/cli",
    "users role": "by the name's index, as in tests/cli",
    "users limit": "by the name's index, as in tests/cli",
    "users password": "by the name's index, as in tests/cli",
    "users link": "by the name's index, as in tests/oidc",
    "users export": "reads all of one user",
    "users erase": "reads all of one user, and the day's answers",
    "users webhook-secret": "by the name's index, as in tests/cli",
    "keys add": "by the user's index, as in tests/cli",
    "keys limit": "by the key's index, as in tests/cli",
    "keys rotate-secret": "by the key's index, as in tests/cli",
    "keys rotate": "the keys that sign tokens are few",
    "keys revoke": "by the key's index, as in tests/cli",
    "budgets list": "prints every cap",
    "budgets webhook-secret": "no table is read for it",
    "runs cancel": "one run, by its id",
    "runs fork": "one run, by its id",
    "runs resume": "runs by their ids; `--all-dead` as `runs dead`",
}


def test_no_command_costs_more(pair: Pair) -> None:
    wrong = []
    for words in COMMANDS:

        def cost(place: Place, words: tuple[str, ...] = words) -> int:
            named = {f"<{name}>": value for name, value in place.known._asdict().items()}
            for name, value in named.items():
                words = tuple(word.replace(name, value) for word in words)
            return place.command(*words)

        wrong.append(compare(pair, " ".join(words), cost).fault())
    found = [line for line in wrong if line]
    assert not found, "\n".join(found)


def test_every_command_is_looked_at_or_says_why_not(pair: Pair) -> None:
    looked_at = {" ".join(words[:2]) for words in COMMANDS}
    for name, group in pair[0].app.cli.commands.items():
        for command in getattr(group, "commands", {}):
            assert {name, f"{name} {command}"} & (looked_at | set(UNCOUNTED)), f"{name} {command}"


def chores(place: Place) -> dict[str, Callable[[], object]]:
    """List repeated chores, by name."""
    services = place.services
    db = services.infra.db
    day_ago = now_ms() - 86_400_000
    return {
        "upkeep": lambda: delete_expired(db, 400),
        "what a sweep asks": lambda: db.query(lambda tx: sweep.due(tx, "wrk_1")),
        "abandoned runs": lambda: db.query(lambda tx: runs.abandoned(tx, 20)),
        "waiting runs": lambda: db.query(lambda tx: runs.waiting(tx, 200)),
        "runs of a worker": lambda: db.query(lambda tx: ownership.held(tx, "wrk_1")),
        "erasures that are due": lambda: db.query(lambda tx: erasures.due(tx, now_ms(), 100)),
        "schedules that are due": lambda: db.query(lambda tx: schedules.due(tx, (0, ""), 50)),
        "webhooks that are due": lambda: db.query(lambda tx: webhooks.due(tx, now_ms(), 100)),
        "batches": lambda: services.runs.batches.tick(),
        "holds that were left behind": lambda: db.query(lambda tx: holds.orphaned(tx, day_ago, 100)),
        "revocations": lambda: db.query(
            lambda tx: token_families.distrusted(tx, families_since=day_ago, keys_since=day_ago)
        ),
        "a cap's window": lambda: db.query(lambda tx: ledger.spent(tx, "session:ses_1", 0)),
    }


def test_no_chore_costs_more(pair: Pair) -> None:
    wrong = []
    for place in pair:  # what is looked at is a turn that finds nothing
        rest(place)
    for name in chores(pair[0]):
        costs = compare(pair, name, lambda place: place.spy.cost(chores(place)[name]))  # noqa: B023
        wrong.append(costs.fault(slack=20))
    found = [line for line in wrong if line]
    assert not found, "\n".join(found)


def test_a_turn_costs_no_more(pair: Pair) -> None:
    """A run in a session, with its key, its hold, its steps and its end; and the same key once more."""

    def turn(place: Place) -> int:
        client = place.app.test_client()
        headers = {"Authorization": f"Bearer {place.tokens['ada']}"}

        def ask(key: str) -> None:
            begun = client.post("/v1/sessions", json={"agent": "assistant"}, headers=headers, buffered=True)
            assert begun.status_code == 201, begun.text
            body = {"input": "Hello", "session_id": begun.get_json()["id"]}
            for _ in range(2):
                answer = client.post(
                    "/v1/agents/assistant/invoke",
                    json=body,
                    headers={**headers, "Idempotency-Key": key},
                    buffered=True,
                )
                assert answer.status_code == 200, answer.text

        ask("first")  # sums the calls of the day, as there are no counters of it yet
        return place.spy.cost(lambda: ask("once"))

    assert compare(pair, "a turn", turn).fault() is None
