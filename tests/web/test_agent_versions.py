"""Published versions of agents: served on each process in place of folders, rolled back, and refused where changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from service.agents.files import version_of
from service.audit.record import Action
from service.store import agent_versions as rows
from service.store import schema
from service.types import Caller, Run, RunRequest
from tests.conftest import ROOT
from tests.made import app_in, close
from tests.usage.conftest import postgres_url, url

__all__ = ["postgres_url", "url"]
TOOLS = '''from service.tools import tool


@tool(idempotent=True, risk="read")
def word() -> str:
    """Say a word."""
    return "{word}"
'''
SPEC = "description: A test agent.\npattern: react\ntools: [word]\n"


class House:
    """Two replicas over one database, with the folder of an agent beside each."""

    def __init__(self, folder: Path, url: str, word: str = "first") -> None:
        self.folders = [folder / name / "agents" / "probe" for name in ("one", "two")]
        for place in self.folders:
            place.mkdir(parents=True)
            (place / "agent.yaml").write_text(SPEC)
        self.edit(word)
        self.apps: list[Flask] = []
        for place in self.folders:
            home = place.parent.parent
            more = {"DATABASE_URL": url, "AGENTS_DIR": str(place.parent), "SECRET_KEY": "s" * 40}
            self.apps.append(app_in(home, **more))
        user = self.services(0).auth.users.by_name("demo")
        self.url = url
        self.headers = {"X-Api-Key": self.services(0).auth.keys.create(user.id, "k")["key"]}

    def services(self, number: int) -> Any:
        return self.apps[number].extensions["slipway"]

    def edit(self, word: str) -> None:
        for place in self.folders:
            (place / "prompt.md").write_text(f"Say {word}.")
            (place / "tools.py").write_text(TOOLS.replace("{word}", word))

    def ask(self, body: Any = None, number: int = 0) -> Any:
        path, client = "/v1/admin/agents/probe/versions", self.apps[number].test_client()
        method = "POST" if body else "GET"
        return client.open(path, method=method, json=body, headers=self.headers, buffered=True)

    def change(self, action: str, **fields: Any) -> Any:
        answer = self.ask({"action": action, **fields})
        assert answer.status_code == 200, answer.text
        return answer.json

    def served(self, number: int) -> str | None:
        """Return the word that the agent of a replica says; None: it is not served."""
        services = self.services(number)
        services.versions.refresh()
        agent = services.agents.agents.get("probe")
        return None if agent is None else str(agent.tools["word"].run({}, None))

    def close(self) -> None:
        for app in self.apps:
            close(app)


@pytest.fixture
def house(tmp_path: Path, url: str) -> Iterator[House]:
    made = House(tmp_path, url)
    yield made
    made.close()


def test_pinned_version_is_served_by_every_replica(house: House) -> None:
    first = house.change("publish")["data"][0]["version"]
    assert first == version_of(house.folders[0]) and house.served(1) == "first"
    house.edit("second")
    second = house.change("publish")["data"]
    assert [row["version"] for row in second][1] == first and len(second) == 2
    assert [house.served(number) for number in (0, 1)] == ["first", "first"], "nothing is pinned yet"
    for place in house.folders:
        shutil.rmtree(place)
    newest = second[0]["version"]
    shown = house.change("pin", version=newest)
    assert (shown["pinned"], [row["pinned"] for row in shown["data"]]) == (newest, [True, False])
    assert [house.served(number) for number in (0, 1)] == ["second", "second"]
    house.change("pin", version=first)
    assert [house.served(number) for number in (0, 1)] == ["first", "first"]
    assert house.change("roll_back")["pinned"] == newest
    assert [house.served(number) for number in (0, 1)] == ["second", "second"]
    assert [pin["version"] for pin in house.change("unpin")["history"]] == [None, newest, first, newest]
    assert house.served(1) == "first", "the folder as it was loaded"
    listed = house.ask(number=1)
    assert listed.status_code == 200 and listed.json["pinned"] is None
    db = house.services(0).infra.db
    audit = db.query(lambda tx: tx.rows(sa.text("SELECT action FROM audit WHERE action LIKE 'agent.%'")))
    assert sorted(row["action"] for row in audit) == [Action.AGENT_PINNED] * 4 + [Action.AGENT_PUBLISHED] * 2


def test_run_finds_the_version_it_began_with(house: House) -> None:
    """On a replica that has never served it, and although another is pinned."""
    first = house.change("publish")["data"][0]["version"]
    house.edit("second")
    second = house.change("publish")["data"][0]["version"]
    house.change("pin", version=second)
    assert house.served(1) == "second"
    found = house.services(1).agents.find("probe", second)
    assert (found.version, found.prompt) == (second, "Say second.")
    other = House(house.folders[0].parents[2] / "more", house.url, "third")
    old = other.services(0).agents.find("probe", first)
    assert (old.version, old.prompt) == (first, "Say first.")
    assert other.services(0).agents.find("probe", "0" * 12).version != first
    other.close()


def test_queued_run_ends_under_the_version_it_began_with(house: House) -> None:
    """A worker that takes it up serves another; without publications that is the one it gets."""
    services = house.services(0)
    user = services.auth.users.by_name("demo")
    request = RunRequest("probe", ({"role": "user", "content": "Hello"},))

    def queued() -> Run:
        run: Run = services.runs.start.queue(Caller(user.id, "demo", "admin"), request, None, "req").run
        return run

    versions = [house.change("publish")["data"][0]["version"]]
    house.edit("second")
    versions.append(house.change("publish")["data"][0]["version"])
    house.change("pin", version=versions[1])
    house.served(0)
    run, again = queued(), queued()
    house.change("pin", version=versions[0])
    house.served(1)
    claimed = house.services(1).runs.execution.waiting.claim(run.id)
    assert (run.agent_version, claimed.agent_version) == (versions[1], versions[1])
    with services.infra.db.engine.begin() as connection:
        connection.execute(
            sa.delete(schema.agent_versions).where(schema.agent_versions.c.version == versions[1])
        )
    assert house.services(1).runs.execution.waiting.claim(again.id).agent_version == versions[0]


def test_unpacked_versions_are_pruned_once_nobody_uses_them(house: House) -> None:
    """Kept are those that are pinned or were before, of open runs, of a canary, and those of the last day."""
    services, place = house.services(0), house.folders[0].parents[1] / "agent-versions" / "probe"
    user = services.auth.users.by_name("demo")
    versions = []
    for word in ("queued", "unused", "before", "pinned", "trial", "fresh"):
        house.edit(word)
        versions.append(house.change("publish")["data"][0]["version"])
        if word in ("queued", "before", "pinned"):
            house.change("pin", version=versions[-1])
            house.served(0)
        if word == "queued":
            request = RunRequest("probe", ({"role": "user", "content": "Hello"},))
            run = services.runs.start.queue(Caller(user.id, "demo", "admin"), request, None, "req").run
            assert run.agent_version == versions[0]
    house.change("canary", version=versions[4], share=0.05)
    (place / ".1-killed").mkdir()
    for folder in place.iterdir():
        if folder.name != versions[5]:
            os.utime(folder, (0, 0))
    house.edit("newest")
    newest = house.change("publish")["data"][0]["version"]
    kept = {one for one in versions if one != versions[1]}
    assert {folder.name for folder in place.iterdir()} == {newest, *kept}
    assert all(folder.stat().st_mtime > 0 for folder in place.iterdir()), "the day counts from the last use"
    unused = services.versions.find("probe", versions[1])
    assert unused.prompt == "Say unused."
    shutil.rmtree(place / versions[1])
    assert services.versions.find("probe", versions[1]).folder.is_dir(), "it is unpacked again"


def test_what_is_refused(house: House) -> None:
    for body, pointer in (
        ({"action": "pin"}, "/version"),
        ({"action": "publish", "version": "0" * 12}, "/version"),
        ({"action": "pin", "version": "0" * 12}, "/version"),
        ({"action": "pin", "version": "../../etc"}, "/version"),
        ({"action": "canary", "share": 0.05}, "/version"),
        ({"action": "canary", "version": "0" * 12}, "/share"),
        ({"action": "canary", "version": "0" * 12, "share": 5}, "/share"),
        ({"action": "pin", "version": "0" * 12, "share": 0.05}, "/share"),
        ({"action": "publish_and_pray"}, "/action"),
    ):
        answer = house.ask(body)
        assert answer.status_code == 422, answer.text
        assert [one["pointer"] for one in answer.json["errors"]] == [pointer], answer.text
    assert house.ask({"action": "roll_back"}).status_code == 409
    (house.folders[0] / "agent.yaml").write_text("pattern: none\n")
    broken = house.ask({"action": "publish"})
    assert (broken.status_code, broken.json["code"]) == (409, "conflict")
    client = house.apps[0].test_client()
    nobody = client.get("/v1/admin/agents/nobody/versions", headers=house.headers, buffered=True)
    assert nobody.status_code == 404, nobody.text
    user = house.services(0).auth.users.create("ada", "a-password-of-some-length", "operator")
    key = house.services(0).auth.keys.create(user.id, "k")["key"]
    assert (
        client.get("/v1/admin/agents/probe/versions", headers={"X-Api-Key": key}, buffered=True).status_code
        == 403
    )


def test_files_that_were_changed_are_not_executed(house: House) -> None:
    version = house.change("publish")["data"][0]["version"]
    house.change("pin", version=version)
    assert house.served(0) == "first"
    [tools] = (house.folders[0].parents[1] / "agent-versions").rglob("tools.py")
    tools.chmod(0o600)
    tools.write_text(TOOLS.replace("{word}", "evil"))
    house.services(0).versions._loaded.clear()
    assert house.services(0).versions.find("probe", version).tools["word"].run({}, None) == "first"
    with house.services(0).infra.db.engine.begin() as connection:
        connection.execute(sa.update(schema.agent_versions).values(signature="0" * 64))
    assert house.served(1) is None, "what is pinned cannot be loaded, and the folder is something else"
    assert house.served(0) == "first", "it was loaded before"
    with house.services(0).infra.db.engine.begin() as connection:
        connection.execute(sa.update(schema.agent_pins).values(version=None))
    assert house.served(1) == "first"


def test_oldest_versions_are_deleted_but_for_those_of_pins(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MOST", 2)
    versions = []
    for word in ("first", "second", "third", "fourth"):
        house.edit(word)
        versions.append(house.change("publish")["data"][0]["version"])
        if word == "first":
            house.change("pin", version=versions[0])
    kept = {row["version"] for row in house.ask().json["data"]}
    assert kept == {versions[0], *versions[2:]}


def test_folder_that_is_too_large(house: House) -> None:
    (house.folders[0] / "big.txt").write_bytes(b"x" * (9 * 1024 * 1024))
    answer = house.ask({"action": "publish"})
    assert answer.status_code == 409 and "bytes" in answer.json["detail"]


def test_folder_is_served_in_development(tmp_path: Path) -> None:
    assert (ROOT / "agents").is_dir()
    app = app_in(tmp_path, RELOAD="true")
    services = app.extensions["slipway"]
    version = services.infra.db.transact(
        lambda tx: services.versions.publish(tx, services.versions.read("support"))
    )
    services.infra.db.transact(lambda tx: services.versions.pin(tx, "support", version["data"][0]["version"]))
    services.versions.refresh()
    assert services.agents.agents["support"].folder == ROOT / "agents" / "support"
    close(app)
