"""Workspaces: sign-in, tokens and keys of users with the same names, and what disabling and deleting do."""

from __future__ import annotations

import pytest

from service.auth.tokens import caller_of
from service.auth.users import User
from service.auth.workspaces import Workspace, WorkspaceService
from service.errors import Conflict, Invalid, InvalidCredentials, InvalidToken, NotFound
from service.ids import new_id
from service.store.actor import Actor, acting_as
from service.types import DEFAULT_WORKSPACE
from tests.auth.forging import forged
from tests.auth.house import PASSWORD, Replica, post

OTHER_PASSWORD = "another horse battery"


def of(replica: Replica) -> WorkspaceService:
    return WorkspaceService(replica.db, replica.revocations)


def add(replica: Replica, name: str) -> Workspace:
    workspaces = of(replica)
    row = workspaces.new_row(name)
    return replica.db.transact(lambda tx: workspaces.insert(tx, row))


@pytest.fixture
def acme(here: Replica) -> Workspace:
    return add(here, "acme")


@pytest.fixture
def twin(here: Replica, acme: Workspace, ada: User) -> User:
    """Ada of another workspace than `ada`."""
    return here.users.create("ada", OTHER_PASSWORD, "admin", workspace_id=acme.id)


def sign_in(replica: Replica, password: str, workspace: str | None) -> int:
    body = {"username": "ada", "password": password} | ({"workspace": workspace} if workspace else {})
    return int(post(replica, "/v1/auth/login", json=body).status_code)


def test_default_is_always_there(here: Replica, ada: User) -> None:
    assert [(each.id, each.name) for each in of(here).page(limit=9, after=None)] == [
        (DEFAULT_WORKSPACE, "default")
    ]
    assert ada.workspace_id == DEFAULT_WORKSPACE
    for change in ({"name": "main"}, {"disabled": True}):
        with pytest.raises(Conflict):
            of(here).change(DEFAULT_WORKSPACE, **change)  # type: ignore[arg-type]
    with pytest.raises(Conflict):
        of(here).delete(DEFAULT_WORKSPACE)


def test_each_signs_in_to_their_own(here: Replica, ada: User, twin: User) -> None:
    assert sign_in(here, PASSWORD, None) == sign_in(here, PASSWORD, "default") == 200
    assert sign_in(here, OTHER_PASSWORD, "acme") == 200
    assert {sign_in(here, PASSWORD, "acme"), sign_in(here, OTHER_PASSWORD, None)} == {401}
    user = here.users.sign_in("ada", OTHER_PASSWORD, "192.0.2.1", "acme")
    assert (user.id, user.workspace_id) == (twin.id, twin.workspace_id)


def test_unknown_workspace_is_a_wrong_password(here: Replica, ada: User) -> None:
    """Also one that can have no such name."""
    answers = [
        post(here, "/v1/auth/login", json={"username": "ada", "password": password, "workspace": workspace})
        for password, workspace in (("wrong", "default"), (PASSWORD, "nowhere"), (PASSWORD, "No Name/"))
    ]
    told = [{**answer.get_json(), "request_id": ""} for answer in answers]
    assert told[0]["code"] == "invalid_credentials" and told.count(told[0]) == 3


def test_wrong_passwords_do_not_lock_out_the_same_name_elsewhere(here: Replica, twin: User) -> None:
    for _ in range(6):
        sign_in(here, "wrong", "acme")
    assert sign_in(here, OTHER_PASSWORD, "acme") == 429
    assert sign_in(here, PASSWORD, None) == 200


def test_token_and_key_carry_the_workspace(here: Replica, ada: User, twin: User) -> None:
    for user in (ada, twin):
        pair = here.tokens.begin(user)
        assert caller_of(here.claims(pair.access_token)).workspace_id == user.workspace_id
        renewed = here.tokens.renew(here.claims(pair.refresh_token, "refresh"))
        assert caller_of(here.claims(renewed.access_token)).workspace_id == user.workspace_id
        key = here.keys.create(user.id, "k")["key"]
        for _ in range(2):  # from the database, then from Redis
            assert here.keys.caller(key).workspace_id == user.workspace_id
    assert "wsp" not in here.claims(here.tokens.begin(ada).access_token), "as before there were workspaces"


@pytest.mark.parametrize("claim", [None, 7, ["wsp_1"]])
def test_token_with_a_strange_workspace_is_refused(here: Replica, ada: User, claim: object) -> None:
    claims = here.claims(here.tokens.begin(ada).access_token)
    with pytest.raises(InvalidToken):
        here.claims(forged(here.signing_keys.current(), {**claims, "wsp": claim}))


def test_disabling_ends_log_ins_and_keys_on_every_worker(
    here: Replica, there: Replica, ada: User, twin: User, acme: Workspace
) -> None:
    pairs = {user.id: here.tokens.begin(user) for user in (ada, twin)}
    keys = {user.id: here.keys.create(user.id, "k")["key"] for user in (ada, twin)}

    def statuses(user: User) -> list[int]:
        return [there.status(token) for token in (pairs[user.id].access_token, keys[user.id])]

    assert statuses(ada) == statuses(twin) == [200, 200]
    of(here).change(acme.id, disabled=True)
    assert statuses(twin) == [401, 401]
    assert statuses(ada) == [200, 200]
    assert sign_in(there, OTHER_PASSWORD, "acme") == 401
    with pytest.raises(InvalidToken):
        there.tokens.renew(there.claims(pairs[twin.id].refresh_token, "refresh"))
    of(here).change(acme.id, disabled=False)
    assert statuses(twin) == [401, 200], "a log-in that has ended stays so"
    assert sign_in(there, OTHER_PASSWORD, "acme") == 200


def test_disabled_workspace_is_known_after_redis_forgot(
    here: Replica, there: Replica, ada: User, twin: User, acme: Workspace
) -> None:
    """By a reload of the revocations from the database, beside a key that is still cached."""
    key, token = here.keys.create(twin.id, "k")["key"], here.tokens.begin(ada).access_token
    assert here.status(key) == 200
    client = here.redis_store.client
    cached = {name: client.get(name) for name in client.keys("slipway:key:*")}
    of(here).change(acme.id, disabled=True)
    client.flushall()
    assert there.status(token) == 200  # reloads
    for name, value in cached.items():
        client.set(name, value, ex=30)
    assert there.status(key) == 401


def test_names(here: Replica, acme: Workspace) -> None:
    for name in ("", "Acme", "a_b", "-a", "a" * 64, "deleted-wsp_x"):
        with pytest.raises(Invalid):
            of(here).new_row(name)
    with pytest.raises(Conflict):
        add(here, "acme")
    other = add(here, "other")
    with pytest.raises(Conflict):
        of(here).change(other.id, name="acme")
    assert of(here).change(other.id, name="other.two").name == "other.two"
    assert of(here).change(other.id, name="other.two").name == "other.two"
    with pytest.raises(NotFound):
        of(here).named("other")


def test_deleted_without_users_only_and_its_name_is_free(here: Replica, twin: User, acme: Workspace) -> None:
    with pytest.raises(Conflict):
        of(here).delete(acme.id)
    here.users.delete(twin.id)
    of(here).delete(acme.id)
    for missing in (acme.id, new_id("wsp")):
        for action in (of(here).get, of(here).delete, lambda each: of(here).change(each, name="x")):
            with pytest.raises(NotFound):
                action(missing)
        with pytest.raises(NotFound):
            here.users.create("bob", PASSWORD, workspace_id=missing)
    assert add(here, "acme").id != acme.id
    with pytest.raises(InvalidCredentials), acting_as(Actor("anonymous")):
        here.users.sign_in("ada", OTHER_PASSWORD, "192.0.2.1", "acme")


def test_users_are_listed_and_changed_within_a_workspace(here: Replica, ada: User, twin: User) -> None:
    pages = {
        where: [user.id for user in here.users.page(limit=9, after=None, workspace_id=where)]
        for where in (None, ada.workspace_id, twin.workspace_id, "wsp_none")
    }
    assert list(pages.values()) == [[ada.id, twin.id], [ada.id], [twin.id], []]
    for action in (
        lambda within: here.users.change(ada.id, within, disabled=True),
        lambda within: here.users.delete(ada.id, within),
    ):
        with pytest.raises(NotFound):
            action(twin.workspace_id)
    assert not here.users.get(ada.id).disabled
    assert here.users.change(twin.id, twin.workspace_id, role="user").role == "user"
