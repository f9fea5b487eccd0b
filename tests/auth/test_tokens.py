from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from service.audit.record import Action
from service.auth.tokens import Pair
from service.auth.users import User
from service.errors import InvalidToken
from service.store import users
from service.store.schema import audit, token_families
from service.types import now_ms
from service.web.authentication import checked_claims
from tests.auth.house import Replica


def renew(replica: Replica, refresh_token: str) -> Pair:
    return replica.tokens.renew(replica.claims(refresh_token, "refresh"))


def test_refresh_tokens_rotate(here: Replica, there: Replica, ada: User) -> None:
    pair = here.tokens.begin(ada)
    for replica in (there, here, there):
        pair = renew(replica, pair.refresh_token)
        assert there.status(pair.access_token) == 200


def test_reused_refresh_token_revokes_the_family(here: Replica, there: Replica, ada: User) -> None:
    first, other = here.tokens.begin(ada), here.tokens.begin(ada)
    second = renew(here, first.refresh_token)
    with pytest.raises(InvalidToken):
        renew(there, first.refresh_token)
    for token in (first.access_token, second.access_token):
        assert here.status(token) == there.status(token) == 401
    with pytest.raises(InvalidToken):
        renew(here, second.refresh_token)
    assert there.status(other.access_token) == 200  # another log-in of the same user


def test_concurrent_refreshes_get_one_pair_that_is_revoked(here: Replica, there: Replica, ada: User) -> None:
    pair = here.tokens.begin(ada)

    def spend(number: int) -> Pair | None:
        try:
            return renew((here, there)[number % 2], pair.refresh_token)
        except InvalidToken:
            return None

    with ThreadPoolExecutor(8) as pool:
        won = [result for result in pool.map(spend, range(8)) if result is not None]
    assert len(won) == 1
    assert here.status(won[0].access_token) == there.status(won[0].access_token) == 401


def test_refresh_picks_up_user_changes(here: Replica, ada: User) -> None:
    pair = here.tokens.begin(ada)
    with here.db.begin() as tx:
        users.update(tx, ada.id, {"limit_runs": "7/minute"})
    renewed = renew(here, pair.refresh_token)
    me = here.client(renewed.access_token).get("/v1/auth/me").get_json()
    assert me["limits"]["runs"] == "7/minute"


def test_refresh_does_not_prolong_the_family(here: Replica, ada: User) -> None:
    pair = here.tokens.begin(ada)
    renewed = renew(here, pair.refresh_token)
    ends = [here.claims(token, "refresh")["exp"] for token in (pair.refresh_token, renewed.refresh_token)]
    assert ends[0] == ends[1]


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
def test_the_scheme_is_case_insensitive(here: Replica, ada: User, kind: str) -> None:
    token = here.tokens.begin(ada).public()[kind]
    for scheme in ("Bearer", "bearer", "BEARER"):
        with here.app.test_request_context(headers={"Authorization": f"{scheme} {token}"}):
            assert checked_claims("access" if kind == "access_token" else "refresh")["sub"] == ada.id


@pytest.mark.parametrize("sent", ["a, ,", "a b", ",", "a, Bearer b", "a.b.c", "é"])
def test_malformed_token_is_invalid(here: Replica, sent: str) -> None:
    headers = {"Authorization": f"Bearer {sent}"}
    for call in (
        here.client().get("/v1/auth/me", headers=headers),
        here.client().post("/v1/auth/refresh", headers=headers),
    ):
        assert (call.status_code, call.get_json()["code"]) == (401, "invalid_token")


def test_refresh_token_of_a_family_that_is_over_is_no_theft(here: Replica, ada: User) -> None:
    """Within `LEEWAY` of its end a token is verified, and its family has ended."""

    def reused() -> int:
        return len(
            here.db.query(lambda tx: tx.rows(sa.select(audit).where(audit.c.action == Action.REFRESH_REUSED)))
        )

    pair = here.tokens.begin(ada)
    over = sa.update(token_families).values(expires_at=now_ms() - 1)
    here.db.transact(lambda tx: tx.execute(over))
    with pytest.raises(InvalidToken):
        renew(here, pair.refresh_token)
    assert reused() == 0
    pair = here.tokens.begin(ada)
    renew(here, pair.refresh_token)
    for _ in range(2):
        with pytest.raises(InvalidToken):
            renew(here, pair.refresh_token)
    assert reused() == 1
