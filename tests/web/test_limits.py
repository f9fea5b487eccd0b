"""Rate limits over two replicas."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from limits import parse

from service.auth.users import User
from service.types import now_ms
from service.usage.rate_limits import PREFIX
from tests.auth.house import PASSWORD, Replica
from tests.web.limited import invoke, pair

__all__ = ["pair"]


def test_a_limit_of_n_is_n_over_both(pair: tuple[Replica, Replica, str]) -> None:
    *both, token = pair

    def call(number: int) -> int:
        status: int = invoke(both[number % 2], token).status_code
        return status

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(call, range(40)))
    assert statuses.count(200) == 10 and statuses.count(429) == 30


def test_headers_have_limit_remaining_and_reset(pair: tuple[Replica, Replica, str]) -> None:
    first, second, token = pair
    left = [int(invoke(replica, token).headers["RateLimit-Remaining"]) for replica in (first, second, first)]
    assert left == [9, 8, 7]
    answer = invoke(second, token)
    assert answer.headers["RateLimit-Limit"] == "10"
    assert 0 < int(answer.headers["RateLimit-Reset"]) <= 60
    assert "Retry-After" not in answer.headers
    assert not [name for name, _ in answer.headers if name.startswith("X-RateLimit")]
    assert first.client(token).get("/v1/auth/me").headers["RateLimit-Limit"] == "6000", "reads have their own"


def test_a_refusal_says_when_to_come_back(pair: tuple[Replica, Replica, str]) -> None:
    first, second, token = pair
    for _ in range(10):
        invoke(first, token)
    answer = invoke(second, token)
    assert (answer.status_code, answer.get_json()["code"]) == (429, "rate_limited")
    assert answer.headers["RateLimit-Remaining"] == "0"
    assert 1 <= int(answer.headers["Retry-After"]) <= 70


def test_views_that_end_something_count_for_each_log_in_and_view(
    replicas: Callable[..., Replica],
) -> None:
    one = replicas(limit_writes="2/minute")
    user = one.users.create("ada", PASSWORD)
    stolen = one.login()["access_token"]
    mine = one.keys.create(user.id, "mine")
    path = f"/v1/auth/keys/{mine['id']}"
    codes = [one.client(stolen).delete(f"{path}x").status_code for _ in range(3)]
    assert codes == [404, 404, 429], "not without end"
    assert one.client(one.login()["access_token"]).delete(path).status_code == 204, "the owner signs in again"
    assert one.client(stolen).post("/v1/auth/logout").status_code == 204
    key = one.keys.create(user.id, "other")["key"]
    assert [one.client(key).post("/v1/auth/logout").status_code for _ in range(3)] == [403, 403, 429]


def test_users_do_not_share_a_limit(pair: tuple[Replica, Replica, str]) -> None:
    first, _, token = pair
    for _ in range(11):
        last = invoke(first, token)
    first.users.create("bob", PASSWORD)
    assert (last.status_code, invoke(first, first.login("bob")["access_token"]).status_code) == (429, 200)


def test_a_users_own_limit_comes_before_the_settings(pair: tuple[Replica, Replica, str]) -> None:
    first, second, _ = pair
    first.users.create("eve", PASSWORD, limit_runs="3/minute")
    token = first.login("eve")["access_token"]
    key = first.keys.create(first.users.by_name("eve").id, "k")["key"]  # type: ignore[union-attr]
    answers = [invoke(first, token), invoke(second, key), invoke(first, key), invoke(second, token)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[0].headers["RateLimit-Limit"] == "3"


def test_an_agents_own_limit_comes_on_top(pair: tuple[Replica, Replica, str]) -> None:
    first, second, token = pair
    answers = [invoke(replica, token, "rated") for replica in (first, second, first)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[0].headers["RateLimit-Limit"] == "2" and answers[0].headers["RateLimit-Remaining"] == "1"
    assert invoke(second, token, "plain").headers["RateLimit-Remaining"] == "6"


def test_counter_keys_match_flask_limiter(pair: tuple[Replica, Replica, str]) -> None:
    """Share the counter with Flask-Limiter, which counts where one round trip does not suffice."""
    first, _, token = pair
    invoke(first, token)
    user = first.client(token).get("/v1/auth/me").get_json()["id"]
    name = parse("10/minute").key_for(user, "runs")
    assert first.redis_store.client.keys("slipway:rate:*runs*") == [f"{PREFIX}:{{{name}}}".encode()]


def test_log_ins_are_limited_by_address(replicas: Callable[..., Replica]) -> None:
    first, second = replicas(limit_login="3/minute"), replicas(limit_login="3/minute")
    first.users.create("ada", PASSWORD)
    body = {"username": "ada", "password": PASSWORD}

    def login(replica: Replica, address: str) -> Any:
        return replica.client().post("/v1/auth/login", json=body, environ_base={"REMOTE_ADDR": address})

    statuses = [login(replica, "192.0.2.1").status_code for replica in (first, second, first, second)]
    assert statuses == [200, 200, 200, 429]
    assert login(second, "192.0.2.2").status_code == 200


def test_refused_log_ins_are_limited_by_name_from_wherever(here: Replica, there: Replica, ada: User) -> None:
    def login(number: int, password: str, username: str = "ada") -> Any:
        return (
            (here, there)[number % 2]
            .client()
            .post(
                "/v1/auth/login",
                json={"username": username, "password": password},
                environ_base={"REMOTE_ADDR": f"192.0.2.{number}"},
            )
        )

    statuses = [login(number, "wrong").status_code for number in range(22)]
    assert statuses == [401] * 20 + [429] * 2
    refused = login(50, PASSWORD)  # guessing right is not told either
    assert refused.status_code == 429 and int(refused.headers["Retry-After"]) > 0
    assert login(51, "wrong", "bob").status_code == 401
    assert here.metric("slipway_login_failures_total") + there.metric("slipway_login_failures_total") == 21


def test_the_window_slides(pair: tuple[Replica, Replica, str]) -> None:
    """At a window's edge the last one still counts, by the share of it that is less than a window ago."""
    first, _, token = pair
    for _ in range(10):
        invoke(first, token)
    (key,) = first.redis_store.client.keys("slipway:rate:*runs*")
    first.redis_store.client.pexpire(key, 30_000)  # of 120: half of the next window has gone by
    statuses = [invoke(first, token).status_code for _ in range(8)]
    assert statuses.count(200) in (5, 6) and statuses[-1] == 429


def test_revoked_log_in_is_401_over_the_limit_and_not_counted(
    pair: tuple[Replica, Replica, str],
) -> None:
    first, second, kept = pair
    ended = first.login()["access_token"]
    assert first.client(ended).post("/v1/auth/logout").status_code == 204
    for number in range(15):
        answer = invoke((first, second)[number % 2], ended)
        assert (answer.status_code, answer.get_json()["code"]) == (401, "invalid_token")
        assert "RateLimit-Limit" not in answer.headers
    assert invoke(first, kept).headers["RateLimit-Remaining"] == "9"
    for _ in range(9):
        invoke(second, kept)
    assert invoke(first, kept).status_code == 429
    assert invoke(first, ended).status_code == 401


def test_a_limited_call_is_one_round_trip(pair: tuple[Replica, Replica, str]) -> None:
    """The look at whether the log-in has ended is in it; without Redis the database is asked, in this process."""
    first, _, token = pair
    invoke(first, token)
    trips: list[int] = []
    real = first.redis_store.attempt

    def counted(work: Any, **options: Any) -> Any:
        trips.append(1)
        return real(work, **options)

    first.redis_store.attempt = counted  # type: ignore[method-assign]
    assert invoke(first, token).status_code == 200
    assert len(trips) == 1


def test_reads_and_writes_are_limited_per_user_over_both(replicas: Callable[..., Replica]) -> None:
    first, second = (replicas(limit_reads="4/minute", limit_writes="3/minute") for _ in range(2))
    for name in ("ada", "bob"):
        first.users.create(name, PASSWORD)
    token, other = (first.login(name)["access_token"] for name in ("ada", "bob"))
    reads = [replica.client(token).get("/v1/auth/keys") for replica in (first, second) * 3]
    assert [answer.status_code for answer in reads] == [200] * 4 + [429] * 2
    writes = [
        replica.client(token).post("/v1/auth/keys", json={"name": "k"}) for replica in (first, second) * 2
    ]
    assert [answer.status_code for answer in writes] == [201] * 3 + [429]
    refused = writes[-1]
    assert refused.get_json()["code"] == "rate_limited"
    assert (refused.headers["RateLimit-Limit"], refused.headers["RateLimit-Remaining"]) == ("3", "0")
    assert 0 < int(refused.headers["Retry-After"]) <= 120
    assert first.client(other).get("/v1/auth/keys").status_code == 200
    assert invoke(first, token).status_code == 200, "runs have a limit of their own"


def test_no_limit_is_none(replicas: Callable[..., Replica]) -> None:
    here = replicas(limit_reads="", limit_writes="", limit_refused="")
    here.users.create("ada", PASSWORD)
    client = here.client(here.login()["access_token"])
    answer = client.get("/v1/auth/me")
    assert answer.status_code == 200 and "RateLimit-Limit" not in answer.headers
    assert client.post("/v1/auth/logout").status_code == 204
    assert client.get("/v1/auth/me").status_code == 401
    assert [here.client("made-up").get("/v1/auth/me").status_code for _ in range(3)] == [401] * 3


def test_a_read_is_one_round_trip(pair: tuple[Replica, Replica, str]) -> None:
    first, _, token = pair
    first.client(token).get("/v1/auth/keys")
    trips: list[int] = []
    real = first.redis_store.attempt

    def counted(work: Any, **options: Any) -> Any:
        trips.append(1)
        return real(work, **options)

    first.redis_store.attempt = counted  # type: ignore[method-assign]
    assert first.client(token).get("/v1/auth/keys").status_code == 200
    assert len(trips) == 1


def test_refreshing_is_limited_per_user(replicas: Callable[..., Replica]) -> None:
    here = replicas(limit_writes="3/minute")
    for name in ("ada", "bob"):
        here.users.create(name, PASSWORD)
    pair = here.login()
    statuses = []
    for _ in range(5):
        answer = here.client(pair["refresh_token"]).post("/v1/auth/refresh")
        statuses.append(answer.status_code)
        pair = answer.get_json() if answer.status_code == 200 else pair
    assert statuses == [200] * 3 + [429] * 2
    assert here.client(here.login("bob")["refresh_token"]).post("/v1/auth/refresh").status_code == 200
    spent = {here.client(pair["access_token"]).post("/v1/auth/refresh").status_code for _ in range(2)}
    assert spent == {401}, "an access token is no refresh token, and uses nothing up"


@pytest.mark.parametrize("sent", ["slp_" + "0" * 48, "made.up.token", "nonsense"])
def test_made_up_keys_and_tokens_are_limited_by_address(replicas: Callable[..., Replica], sent: str) -> None:
    first, second = (replicas(limit_refused="5/minute") for _ in range(2))
    first.users.create("ada", PASSWORD)
    token = first.login()["access_token"]

    def ask(replica: Replica, token: str, address: str = "192.0.2.1") -> Any:
        return replica.client(token).get("/v1/auth/me", environ_base={"REMOTE_ADDR": address})

    answers = [ask(replica, sent) for replica in (first, second) * 4]
    assert [answer.status_code for answer in answers] == [401] * 5 + [429] * 3
    assert answers[-1].get_json()["code"] == "rate_limited" and int(answers[-1].headers["Retry-After"]) > 0
    assert ask(second, token).status_code == 200, "neighbours are not kept out"
    assert ask(second, sent, "192.0.2.2").status_code == 401


def test_expired_key_is_genuine(replicas: Callable[..., Replica]) -> None:
    """Neighbours of a client that goes on with it are not kept out."""
    here = replicas(limit_refused="2/minute")
    ada = here.users.create("ada", PASSWORD)
    key = here.keys.create(ada.id, "old", expires_at=now_ms() - 1)["key"]
    answers = [here.client(key).get("/v1/auth/me") for _ in range(4)]
    assert [(answer.status_code, answer.get_json()["code"]) for answer in answers] == [
        (401, "invalid_token")
    ] * 4
    assert [here.client("slp_").get("/v1/auth/me").status_code for _ in range(3)] == [401, 401, 429]
