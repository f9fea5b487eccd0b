"""Embeddings under caps: held before they are sent, settled after, and never sent where they cannot be paid."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from service.embeddings import MORE_TOKENS, Embeddings, asker
from service.knowledge.vectors import NoVectors
from service.store import agent_stops
from service.store.database import Row
from service.store.schema import holds, ledger, workspaces
from service.store.usage import UsageQuery, lines
from service.types import DEFAULT_WORKSPACE, Run, UsageSource, now_ms
from service.usage.ledger import check
from service.usage.prices import PriceTable
from service.usage.reservation import sweep_holds
from tests.embedding_endpoint import MODEL, Endpoint, paid, price_of, serving
from tests.runs.house import ADA
from tests.usage.conftest import make, postgres_url, url
from tests.usage.house import House, a_run

__all__ = ["make", "postgres_url", "url"]
Make = Callable[..., House]
OTHER = "wsp_" + "a" * 26
ON_SQLITE = pytest.mark.parametrize("url", ["sqlite"], indirect=True)  # money is the same on both
WORD = 1_000  # nano-dollars of a token
STOP = {"agent": "support", "reason": "why", "stopped_by": "usr_ada", "stopped_at": 1}
TEXT = "three words here"
MOST = (len(TEXT) + MORE_TOKENS) * WORD


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving() as server:
        yield server


@pytest.fixture
def house(make: Make) -> House:
    return with_other(make(patience=0))


def with_other(house: House) -> House:
    row = {"id": OTHER, "name": "other", "created_at": 1}
    house.db.transact(lambda tx: tx.execute(sa.insert(workspaces), row))
    return house


@pytest.fixture
def embeddings(house: House, endpoint: Endpoint) -> Embeddings:
    return paid(endpoint.url, house.db, house.spending)


def cap(house: House, scope: str, nano: int) -> None:
    house.budgets.put(scope, "day", nano)


def calls(house: House) -> list[Row]:
    """Settled calls of the ledger, whose books must be right."""
    prices = PriceTable([price_of(MODEL), price_of("free", 0)])
    assert not check(house.db, prices).faults
    return house.db.query(lambda tx: tx.rows(sa.select(ledger).where(ledger.c.account == "upstream")))


def held(house: House) -> list[Row]:
    return house.db.query(lambda tx: tx.rows(sa.select(holds)))


def test_workspace_pays_for_its_documents(house: House, embeddings: Embeddings) -> None:
    for scope in ("service", f"workspace:{OTHER}", f"workspace:{DEFAULT_WORKSPACE}", "agent:support"):
        cap(house, scope, 100_000)
    assert len(embeddings.of_workspace(OTHER, "support").embed_all([TEXT, "one"])) == 2
    (call,) = calls(house)
    told = (
        call["user_id"],
        call["agent"],
        call["model"],
        call["input_tokens"],
        call["amount_nano"],
        call["basis"],
    )
    assert told == (OTHER, "support", MODEL, 4, 4 * WORD, "exact")
    assert not held(house)
    spent = [house.figures(scope)[0] for scope in ("service", f"workspace:{OTHER}", "agent:support")]
    assert spent == [4 * WORD] * 3 and house.figures(f"workspace:{DEFAULT_WORKSPACE}") == (0, 0)


def test_cap_that_is_set_later_counts_what_a_workspace_has_embedded(
    house: House, embeddings: Embeddings
) -> None:
    embeddings.of_workspace(OTHER, "support").embed_all([TEXT])
    cap(house, f"workspace:{OTHER}", 100_000)
    assert house.figures(f"workspace:{OTHER}") == (3 * WORD, 0)


def test_usage_shows_the_workspace_in_place_of_a_user(house: House, embeddings: Embeddings) -> None:
    embeddings.of_workspace(DEFAULT_WORKSPACE, "support").embed_all([TEXT])
    by = ("model", "user", "workspace")
    report = UsageQuery(0, now_ms() + 1, by)
    (line,) = house.db.query(lambda tx: lines(tx, report))
    assert {name: line[name] for name in (*by, "calls", "input_tokens", "amount_nano")} == {
        "model": MODEL, "user": DEFAULT_WORKSPACE, "workspace": DEFAULT_WORKSPACE,
        "calls": 1, "input_tokens": 3, "amount_nano": 3 * WORD,
    }  # fmt: skip


@ON_SQLITE
def test_caller_pays_for_a_look_up(house: House, embeddings: Embeddings) -> None:
    caller = ADA._replace(key_id="key_" + "a" * 26)
    assert embeddings.of(asker(caller, "support", "eve")).embed(TEXT) is not None
    (call,) = calls(house)
    told = [call[name] for name in ("user_id", "key_id", "end_user", "agent", "run_id")]
    assert told == [caller.user_id, caller.key_id, "eve", "support", ""]


@ON_SQLITE
def test_run_pays_for_its_queries(house: House, embeddings: Embeddings) -> None:
    run, told = a_run(), list[tuple[int, UsageSource]]()
    embedder = embeddings.of(run, spent=lambda cost, source: told.append((cost, source)))
    assert embedder.embed(TEXT) is not None
    (call,) = calls(house)
    assert (call["run_id"], call["user_id"], told) == (run.id, run.user_id, [(3 * WORD, "reported")])


@pytest.mark.parametrize(
    ("faults", "cost", "basis"),
    [
        ({"tokens": None}, MOST, "estimate"),
        ({"tokens": lambda texts: 10_000}, MOST, "worst"),
        ({"tokens": lambda texts: -1}, MOST, "estimate"),
        ({"status": 500}, 0, "nothing"),
        ({"status": 401}, 0, "nothing"),
        ({"most_bytes": 5}, MOST, "worst"),
        ({"answer": {"data": [], "usage": {"prompt_tokens": 2}}}, 2 * WORD, "exact"),
        ({"answer": []}, MOST, "worst"),
        ({"answer": {"data": [{"embedding": [10**400]}], "usage": {"prompt_tokens": 2}}}, 2 * WORD, "exact"),
        ({"body": b"[" * 100_000}, MOST, "worst"),
    ],
)
@ON_SQLITE
def test_what_is_not_told_costs_the_most(
    house: House, embeddings: Embeddings, endpoint: Endpoint, faults: dict[str, Any], cost: int, basis: str
) -> None:
    for name, value in faults.items():
        setattr(endpoint, name, value)
    embeddings.of(a_run()).embed(TEXT)
    (call,) = calls(house)
    assert (call["amount_nano"], call["basis"], len(endpoint.asked)) == (cost, basis, 1)
    assert not held(house)


@ON_SQLITE
def test_endpoint_that_is_not_there_costs_nothing(house: House) -> None:
    embeddings = paid("http://127.0.0.1:9/v1/embeddings", house.db, house.spending)
    with pytest.raises(NoVectors) as failed:
        embeddings.of_workspace(OTHER, "support").embed_all([TEXT])
    assert failed.value.why == "endpoint_away"
    assert [call["amount_nano"] for call in calls(house)] == [0]


@ON_SQLITE
def test_failed_query_is_not_sent_again_at_once(
    house: House, embeddings: Embeddings, endpoint: Endpoint
) -> None:
    endpoint.status = 500
    for _ in range(3):
        assert embeddings.of(a_run()).embed(TEXT) is None
    assert len(endpoint.asked) == len(calls(house)) == 1


@ON_SQLITE
def test_cap_keeps_a_call_from_being_sent(house: House, embeddings: Embeddings, endpoint: Endpoint) -> None:
    cap(house, f"workspace:{OTHER}", MOST - 1)
    assert embeddings.refusal(OTHER, "support", MOST // WORD) == "cap_reached"
    with pytest.raises(NoVectors) as refused:
        embeddings.of_workspace(OTHER, "support").embed_all([TEXT])
    assert refused.value.why == "cap_reached" and OTHER in refused.value.detail
    assert not endpoint.asked and not calls(house)
    cap(house, f"workspace:{OTHER}", MOST)
    assert embeddings.refusal(OTHER, "support", MOST // WORD) is None
    embeddings.of_workspace(OTHER, "support").embed_all([TEXT])


@ON_SQLITE
def test_unknown_price_keeps_a_call_from_being_sent(house: House, endpoint: Endpoint) -> None:
    unpriced = replace(paid(endpoint.url, house.db, house.spending), prices=PriceTable([]))
    assert unpriced.refusal(OTHER, "support", 1) == "price_unknown"
    with pytest.raises(NoVectors) as refused:
        unpriced.of_workspace(OTHER, "support").embed_all([TEXT])
    assert refused.value.why == "price_unknown"
    assert unpriced.of(a_run()).embed(TEXT) is None
    assert not endpoint.asked and not held(house)


@ON_SQLITE
def test_price_of_zero_is_a_price(house: House, endpoint: Endpoint) -> None:
    cap(house, "service", 0)
    free = paid(endpoint.url, house.db, house.spending, "free", 0)
    assert free.of(a_run()).embed(TEXT) is not None
    (call,) = calls(house)
    assert (call["amount_nano"], call["input_tokens"], call["model"]) == (0, 3, "free")


@ON_SQLITE
def test_stopped_agent_embeds_nothing(house: House, embeddings: Embeddings, endpoint: Endpoint) -> None:
    house.db.transact(lambda tx: agent_stops.stop(tx, STOP))
    assert embeddings.of(a_run()).embed(TEXT) is None
    assert embeddings.refusal(OTHER, "support", 1) == "agent_stopped"
    assert not endpoint.asked and not held(house)


def test_many_at_once_pass_no_cap(make: Make, endpoint: Endpoint) -> None:
    house = with_other(make(patience=0))
    cap(house, "service", 20 * MOST)
    cap(house, f"workspace:{OTHER}", 10 * MOST)
    endpoint.tokens = None  # each costs all that was held
    sent: list[int] = []

    def work(number: int) -> None:
        embedder = paid(endpoint.url, house.db, house.spending).of_workspace(OTHER, "support")
        for _ in range(5):
            try:
                embedder.embed_all([TEXT])
                sent.append(number)
            except NoVectors as refused:
                assert refused.why == "cap_reached"

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert len(sent) == len(endpoint.asked) == len(calls(house)) == 10
    assert house.figures(f"workspace:{OTHER}") == (10 * MOST, 0)


@ON_SQLITE
def test_queries_of_a_run_at_once_stay_within_what_one_run_may_cost(make: Make, endpoint: Endpoint) -> None:
    house, run, lock = make(patience=0, run_most=3 * MOST), a_run(), threading.Lock()
    endpoint.tokens = None

    def spent(cost: int, source: UsageSource) -> None:
        with lock:
            run.cost_nano += cost

    embedder = paid(endpoint.url, house.db, house.spending).of(run, spent=spent)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(embedder.embed, [TEXT] * 8))
    assert sum(one is not None for one in found) == len(endpoint.asked) == 3
    assert run.cost_nano == 3 * MOST


def test_call_of_a_sub_agent_is_taken_from_its_tree(
    house: House, embeddings: Embeddings, endpoint: Endpoint
) -> None:
    run: Run = a_run()
    cap(house, "service", 100_000)
    tree = house.plant(run, MOST)
    assert embeddings.of(run, tree).embed(TEXT) is not None
    assert house.figures("service") == (3 * WORD, MOST - 3 * WORD)
    assert embeddings.of(run, tree).embed(TEXT) is None and len(endpoint.asked) == 1
    house.finish(house.spending.end_tree(tree))
    assert house.figures("service") == (3 * WORD, 0) and len(calls(house)) == 1


def test_sweep_settles_the_call_of_a_worker_that_was_killed(
    house: House, embeddings: Embeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    cap(house, f"workspace:{OTHER}", 100_000)
    monkeypatch.setattr("service.embeddings.PaidEmbedder._settle", lambda *_: None)  # killed here
    embeddings.of_workspace(OTHER, "support").embed_all([TEXT])
    assert house.figures(f"workspace:{OTHER}") == (0, MOST) and len(held(house)) == 1
    assert sweep_holds(house.db, house.spending, older_than=-1) == 1
    assert house.figures(f"workspace:{OTHER}") == (MOST, 0)
    assert [call["basis"] for call in calls(house)] == ["worst"]
