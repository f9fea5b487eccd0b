"""Signing keys: the first, rotation, a stolen one, an upgrade, another SECRET_KEY, the database away."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from operator import methodcaller
from typing import Any, get_args

import jwt
import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from service.audit.record import Action
from service.auth import signing_keys
from service.auth.signing_keys import private_key
from service.auth.users import User
from service.errors import Conflict, DatabaseUnavailable
from service.ids import new_id
from service.store import signing_keys as rows
from service.store import token_families
from service.store.database import Database, Row
from service.store.schema import audit
from service.types import now_ms
from tests.auth.forging import claims_of, forged
from tests.auth.house import PASSWORD, SECRET, Replica, post
from tests.twice import Way, write_twice

Replicas = Callable[..., Replica]
HOUR_MS = 3_600_000


def pem(key: Any) -> str:
    text: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return text.decode()


def stored(replica: Replica) -> list[Row]:
    return replica.db.query(rows.listed)


def kid_of(token: str) -> str | None:
    kid: str | None = jwt.get_unverified_header(token).get("kid")
    return kid


def kids(replica: Replica) -> list[str]:
    return [key["kid"] for key in replica.client().get("/.well-known/jwks.json").get_json()["keys"]]


def away(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the database away from one replica."""

    def fail(*_: Any, **__: Any) -> None:
        raise DatabaseUnavailable("away")

    for name in ("query", "transact", "read"):
        monkeypatch.setattr(replica.db, name, fail)


def old_pair(replica: Replica, user: User, **options: Any) -> dict[str, str]:
    """Log in as the release before did: HMAC with SECRET_KEY, or the given key; no keys in the database."""
    family, now = new_id("fam"), int(time.time())
    ends = now + 86_400
    replica.db.transact(
        lambda tx: token_families.insert(tx, family, user.id, "first", now=now_ms(), expires_at=ends * 1000)
    )
    common = {"iss": "slipway", "aud": "slipway", "sub": user.id, "fam": family, "iat": now}
    access = {**common, "type": "access", "jti": "a", "exp": now + 900, "role": "user", "name": "ada"}
    refresh = {**common, "type": "refresh", "jti": "first", "exp": ends}
    sign = {"key": SECRET, "algorithm": "HS256", **options}
    return {"access": jwt.encode(access, **sign), "refresh": jwt.encode(refresh, **sign)}


def test_concurrent_starts_make_one_key(replicas: Replicas) -> None:
    several = [replicas() for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda replica: replica.signing_keys.refresh(), several))
    assert len(stored(several[0])) == 1
    assert len({replica.signing_keys.current().kid for replica in several}) == 1


def test_public_keys_verify_a_token(here: Replica, there: Replica, ada: User) -> None:
    token = here.login()["access_token"]
    (public,) = there.client().get("/.well-known/jwks.json").get_json()["keys"]
    assert {key: public[key] for key in ("kty", "crv", "alg", "use", "kid")} == {
        "kty": "OKP",
        "crv": "Ed25519",
        "alg": "EdDSA",
        "use": "sig",
        "kid": kid_of(token),
    }
    assert public.keys() == {"kty", "crv", "alg", "use", "kid", "x"}  # and no private part
    key = jwt.PyJWK.from_dict(public)
    assert jwt.decode(token, key, algorithms=["EdDSA"], audience="slipway", issuer="slipway")["name"] == "ada"


def test_private_keys_are_stored_encrypted(here: Replica) -> None:
    here.signing_keys.refresh()
    signing = here.signing_keys.current().signing
    assert isinstance(signing, Ed25519PrivateKey)
    assert signing.private_bytes_raw().hex() not in str(stored(here))


def test_rotation_signs_nobody_out(here: Replica, there: Replica, ada: User) -> None:
    before = here.login()
    there.signing_keys.refresh()
    key = here.signing_keys.rotate()
    here.signing_keys.refresh()
    after = here.login()
    assert kid_of(after["access_token"]) == key.kid != kid_of(before["access_token"])
    for replica in (there, here):  # there has not read the keys since
        assert replica.status(before["access_token"]) == replica.status(after["access_token"]) == 200
    assert post(there, "/v1/auth/refresh", before["refresh_token"]).status_code == 200
    assert kids(here) == kids(there) == [kid_of(before["access_token"]), key.kid]


def test_a_new_key_is_public_before_it_signs(replicas: Replicas) -> None:
    here = replicas(lead=3600)
    here.users.create("ada", PASSWORD)
    first = kid_of(here.login()["access_token"])
    key = here.signing_keys.rotate()
    here.signing_keys.refresh()
    assert kids(here) == [first, key.kid]
    assert kid_of(here.login()["access_token"]) == first
    ends = stored(here)[0]["verifies_until"] - key.signs_from
    assert ends >= 86_400_000  # as long as a refresh token lives that was signed at the last moment


def test_a_key_verifies_until_its_end(here: Replica, there: Replica, ada: User) -> None:
    pair = here.login()
    here.signing_keys.rotate()
    here.db.transact(lambda tx: rows.retire(tx, 2, now_ms() - 1))
    there.signing_keys.refresh()
    assert there.status(pair["access_token"]) == 401
    assert post(there, "/v1/auth/refresh", pair["refresh_token"]).status_code == 401
    assert kids(there) == [stored(here)[1]["kid"]]


def test_tokens_of_a_stolen_key_end_on_every_replica(here: Replica, there: Replica, ada: User) -> None:
    pair, stolen = here.login(), here.signing_keys.current()
    assert here.status(pair["access_token"]) == there.status(pair["access_token"]) == 200  # remembered now
    here.signing_keys.rotate()
    key = here.signing_keys.rotate(stolen=True)
    for replica in (here, there):
        replica.signing_keys.refresh()  # as each sweep does
        assert replica.status(pair["access_token"]) == 401
        assert replica.status(forged(stolen, claims_of(pair["access_token"]))) == 401
        assert post(replica, "/v1/auth/refresh", pair["refresh_token"]).status_code == 401
        assert kids(replica) == [key.kid]
    assert there.status(here.login()["access_token"]) == 200


def test_of_two_rotations_at_once_one_is_refused(here: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    here.signing_keys.refresh()
    before = stored(here)
    here.signing_keys.rotate()
    monkeypatch.setattr(rows, "listed", lambda tx: before)
    with pytest.raises(Conflict):
        here.signing_keys.rotate()


@pytest.mark.parametrize("way", get_args(Way))
def test_a_rotation_may_be_written_twice(here: Replica, way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    here.signing_keys.refresh()
    write_twice(way, monkeypatch)
    key = here.signing_keys.rotate()
    assert [row["kid"] for row in stored(here)][1:] == [key.kid]
    assert [row["verifies_until"] is None for row in stored(here)] == [False, True]


def test_a_rotation_is_audited(here: Replica) -> None:
    here.signing_keys.refresh()
    for stolen, action in ((False, Action.SIGNING_KEY_ROTATED), (True, Action.SIGNING_KEYS_ENDED)):
        kid = here.signing_keys.rotate(stolen=stolen).kid
        query = sa.select(audit).where(audit.c.action == action)
        [row] = here.db.query(methodcaller("rows", query))
        assert (row["subject"], row["result"]) == (f"signing_key:{kid}", "ok")


def test_unknown_keys_cost_one_look_up(here: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    here.signing_keys.refresh()
    reads: list[object] = []
    query = Database.query
    monkeypatch.setattr(signing_keys, "_LOOK_UP_PAUSE", 3600)
    monkeypatch.setattr(Database, "query", lambda *args, **kw: (reads.append(args), query(*args, **kw))[1])
    key = here.signing_keys.current()
    for number in range(20):
        header = {**key.header, "kid": f"{number:016x}"}
        assert here.status(forged(key, {"type": "access"}, header)) == 401
    assert len(reads) == 1


def test_known_keys_verify_without_the_database(
    here: Replica, there: Replica, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = here.login()
    there.signing_keys.refresh()
    here.signing_keys.rotate()
    here.signing_keys.refresh()
    newer = here.login()
    away(there, monkeypatch)
    assert there.claims(pair["access_token"])["sub"] == ada.id
    assert kids(there) == [kid_of(pair["access_token"])]
    for _ in range(2):  # the second within the pause of look-ups: 401 would sign the user out
        answer = post(there, "/v1/auth/refresh", newer["refresh_token"])
        assert (answer.status_code, answer.get_json()["code"]) == (503, "database_unavailable")


def test_without_keys_and_database_no_token_is_refused(
    here: Replica, there: Replica, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = here.login()
    with monkeypatch.context() as patched:
        away(there, patched)
        for _ in range(2):
            assert there.status(pair["access_token"]) == 503
            assert there.client().get("/.well-known/jwks.json").status_code == 503
    there.signing_keys.refresh()
    assert there.status(pair["access_token"]) == 200


def test_an_upgrade_from_hmac_signs_nobody_out(
    replicas: Replicas, here: Replica, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check both ways: the release before takes tokens of the new one while its replicas may still serve."""
    old = old_pair(here, ada)
    assert here.status(old["access"]) == 200
    renewed = post(here, "/v1/auth/refresh", old["refresh"]).get_json()
    for token in (renewed["access_token"], here.login()["access_token"]):
        assert jwt.get_unverified_header(token) == {"typ": "JWT", "alg": "HS256"}
        assert jwt.decode(token, SECRET, ["HS256"], audience="slipway", issuer="slipway")["sub"] == ada.id
    hmac, pair = stored(here)
    assert pair["signs_from"] - hmac["created_at"] == HOUR_MS
    assert kids(here) == [pair["kid"]]
    assert hmac["verifies_until"] - pair["signs_from"] >= 86_400_000
    monkeypatch.setattr(signing_keys, "now_ms", lambda: now_ms() + HOUR_MS)  # once all are new
    assert kid_of(here.login()["access_token"]) == pair["kid"]
    assert post(here, "/v1/auth/refresh", renewed["refresh_token"]).status_code == 200
    monkeypatch.setattr(signing_keys, "now_ms", lambda: hmac["verifies_until"])
    here.signing_keys.verified.clear()
    assert here.status(old["access"]) == 401


def test_hmac_is_refused_where_it_never_was_used(here: Replica, ada: User) -> None:
    here.signing_keys.refresh()
    old = old_pair(here, ada)
    assert here.status(old["access"]) == post(here, "/v1/auth/refresh", old["refresh"]).status_code == 401


def test_an_upgrade_with_a_key_pair_signs_nobody_out(replicas: Replicas) -> None:
    private = Ed25519PrivateKey.generate()
    here, there = replicas(private_key=pem(private)), replicas(private_key=pem(private))
    ada = here.users.create("ada", PASSWORD)
    here.signing_keys.refresh()
    (row,) = stored(here)
    old = old_pair(here, ada, key=private, algorithm="EdDSA", headers={"kid": row["kid"]})
    assert there.status(old["access"]) == 200
    assert post(there, "/v1/auth/refresh", old["refresh"]).status_code == 200
    assert jwt.get_unverified_header(here.login()["access_token"])["kid"] == row["kid"]
    here.signing_keys.rotate(stolen=True)
    there.signing_keys.refresh()  # and does not take it over again
    assert there.status(old["access"]) == 401


def test_keys_of_another_secret_are_void(replicas: Replicas, here: Replica, ada: User) -> None:
    pair = here.login()
    there = replicas(secret="b" * 64, private_key=pem(Ed25519PrivateKey.generate()))
    assert there.status(pair["access_token"]) == 401
    token = there.login()["access_token"]
    assert kids(there) == [kid_of(token)] and kid_of(token) != kid_of(pair["access_token"])
    here.signing_keys.refresh()
    assert here.status(token) == 401 and here.status(pair["access_token"]) == 200


def test_expired_keys_are_deleted(here: Replica) -> None:
    here.signing_keys.refresh()
    newest = here.signing_keys.rotate(stolen=True)
    assert here.db.transact(lambda tx: rows.expire(tx, now_ms() + 1, 10)) == 1
    assert [row["kid"] for row in stored(here)] == [newest.kid]


def test_only_ed25519_keys_are_taken_over() -> None:
    assert private_key(pem(Ed25519PrivateKey.generate()))
    with pytest.raises(ValueError, match="Ed25519"):
        private_key(pem(generate_private_key(65537, 2048)))
