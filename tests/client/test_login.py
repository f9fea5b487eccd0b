"""Log-ins that are renewed by themselves, one renewal at a time, in one process and in several."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest
from slipway_client import AsyncSlipway, AuthenticationError, Login, Slipway
from slipway_client.cli.config import LoginFile
from slipway_client.credentials import Memory, TokenPair

from tests import conftest as parts
from tests.client.wire import RUN, paths, problem, scripted, sent
from tests.conftest import ROOT
from tests.llm.wire_server import close, whole

LOGIN = ("demo", "demo-password")
AT_ONCE = 12
ME = {"id": "usr_1", "username": "ada", "role": "user", "scopes": [], "limits": {}}
pytestmark = pytest.mark.usefixtures("quick")


def tokens(access: str, refresh: str = "r") -> dict[str, Any]:
    return {"access_token": access, "refresh_token": refresh, "token_type": "Bearer", "expires_in": 900}


def stored(ends: float = 9e9) -> Login:
    memory = Memory()
    memory.save(TokenPair("old", "r0", ends))
    return Login.stored(memory)


def spoil(login: Login, ends: float | None = None) -> None:
    """Have the access token be one that is refused, or over."""
    pair = login.tokens
    assert pair is not None
    login._store.save(TokenPair("spoilt", pair.refresh, pair.ends if ends is None else ends))


@pytest.mark.parametrize("ends", [None, 0.0], ids=["refused", "over"])
def test_threads_renew_a_log_in_once(server: parts.Slipway, ends: float | None) -> None:
    login = Login(*LOGIN)
    asked: list[str] = []
    names: list[str] = []
    with Slipway(login=login, base_url=server.url) as client:
        client.account.me()
        spoil(login, ends)
        client._http.event_hooks = {"request": [lambda request: asked.append(request.url.path)]}
        gate = threading.Barrier(AT_ONCE)

        def ask() -> None:
            gate.wait(60)
            names.append(client.account.me().username)

        threads = [threading.Thread(target=ask) for _ in range(AT_ONCE)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert names == ["demo"] * AT_ONCE
    assert asked.count("/v1/auth/refresh") == 1 and "/v1/auth/login" not in asked


def test_clients_that_share_a_log_in_renew_it_once(server: parts.Slipway) -> None:
    login = Login(*LOGIN)
    first = Slipway(login=login, base_url=server.url)
    second = Slipway(login=login, base_url=server.url)
    with first, second:
        first.account.me()
        spoil(login)
        gate = threading.Barrier(2)
        names: list[str] = []

        def ask(client: Slipway) -> None:
            gate.wait(60)
            names.append(client.account.me().username)

        threads = [threading.Thread(target=ask, args=(client,)) for client in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert names == ["demo"] * 2
        spoil(login)
        login._login = None  # a second refresh would have revoked the log-in
        assert first.account.me().username == "demo"


def test_tasks_renew_a_log_in_once(server: parts.Slipway) -> None:
    asked: list[str] = []

    async def note(request: Any) -> None:
        asked.append(request.url.path)

    async def main() -> None:
        login = Login(*LOGIN)
        async with AsyncSlipway(login=login, base_url=server.url) as client:
            await client.account.me()
            spoil(login)
            client._http.event_hooks = {"request": [note]}
            async with anyio.create_task_group() as group:
                for _ in range(AT_ONCE):
                    group.start_soon(client.account.me)

    anyio.run(main)
    assert asked.count("/v1/auth/refresh") == 1 and "/v1/auth/login" not in asked


def test_a_wrong_password_is_told_and_not_tried_again() -> None:
    login = Login("a", "b", "acme")
    with scripted(problem(401, "invalid_credentials")) as server:
        with Slipway(login=login, base_url=server.url) as client, pytest.raises(AuthenticationError):
            client.account.me()
        assert server.requests[0].json == {"username": "a", "password": "b", "workspace": "acme"}
        assert len(server.requests) == 1


def test_a_revoked_log_in_begins_anew_with_the_password() -> None:
    refused = problem(401, "invalid_token")
    with scripted(whole(tokens("a1")), refused, refused, whole(tokens("a2")), whole(RUN)) as server:
        with Slipway(login=Login(*LOGIN), base_url=server.url) as client:
            assert client.agents.invoke("assistant", "?").run_id == "run_1"
        asked = [path.rpartition("/")[2] for path in paths(server)]
        assert asked == ["login", "invoke", "refresh", "login", "invoke"]
        keys = sent(server, "idempotency-key")
        assert keys[1] == keys[4] and keys[0] is keys[2] is None  # log-ins take none
        assert sent(server, "authorization") == [None, "Bearer a1", "Bearer r", None, "Bearer a2"]


def test_a_revoked_log_in_without_a_password_ends() -> None:
    login = stored()
    with scripted(*[problem(401, "invalid_token")] * 2) as server:
        with Slipway(login=login, base_url=server.url) as client, pytest.raises(AuthenticationError) as ended:
            client.account.me()
        assert ended.value.code == "signed_out" and login.tokens is None and len(server.requests) == 2


def test_after_a_refresh_without_an_answer_the_password_begins_anew() -> None:
    login = Login(*LOGIN)
    login._store.save(TokenPair("old", "r0", 0))
    with scripted(close, close, whole(tokens("a1")), whole(ME)) as server:
        with Slipway(login=login, base_url=server.url) as client:
            assert client.account.me().username == "ada"
        asked = [path.rpartition("/")[2] for path in paths(server)]
        assert asked == ["refresh", "login", "login", "me"]  # the token may be spent: it is not used again


def test_without_a_password_a_refresh_without_an_answer_is_tried_again() -> None:
    login = stored(ends=0)
    with scripted(close, whole(tokens("a1")), whole(ME)) as server:
        with Slipway(login=login, base_url=server.url) as client:
            assert client.account.me().username == "ada"
        assert paths(server) == ["/v1/auth/refresh", "/v1/auth/refresh", "/v1/auth/me"]


def test_a_refresh_that_was_refused_for_now_is_repeated() -> None:
    login = stored(ends=0)
    with scripted(problem(503, "unavailable", 0), whole(tokens("a1", "r1")), whole(ME)) as server:
        with Slipway(login=login, base_url=server.url) as client:
            assert client.account.me().username == "ada"
        assert sent(server, "authorization") == ["Bearer r0", "Bearer r0", "Bearer a1"]
    assert login.tokens is not None and login.tokens.refresh == "r1"


def test_a_token_that_is_refused_twice_is_an_error() -> None:
    refused = problem(401, "invalid_token")
    with scripted(refused, whole(tokens("a1")), refused) as server:
        with Slipway(login=stored(), base_url=server.url) as client, pytest.raises(AuthenticationError):
            client.account.me()
        assert len(server.requests) == 3


PROCESS = """
from slipway_client.cli.config import connected
print("ready", flush=True)
input()
with connected(None) as client:
    print(client.account.me().username)
"""


def test_processes_that_share_a_file_renew_it_once(
    server: parts.Slipway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second refresh would spend the token twice, which revokes the log-in."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("SLIPWAY_API_KEY", raising=False)
    monkeypatch.delenv("SLIPWAY_BASE_URL", raising=False)
    login = Login(*LOGIN)
    with Slipway(login=login, base_url=server.url) as client:
        client.account.me()
    assert login.tokens is not None
    file = LoginFile()
    over = {"access": "spoilt", "refresh": login.tokens.refresh, "ends": 0}
    file.write({"base_url": server.url, "tokens": over})
    children = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "client")},
        )
        for _ in range(4)
    ]
    for child in children:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
    for child in children:  # all at once
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    outputs = [child.communicate(timeout=60)[0].strip() for child in children]
    assert outputs == ["demo"] * 4
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700
    assert json.loads(file.path.read_text())["tokens"]["access"] != "spoilt"
