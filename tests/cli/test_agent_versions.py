"""`flask agents`: versions published, pinned and rolled back, and canaries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from flask import Flask

from tests.cli.house import Flask_, env, flask
from tests.evals.house import app_of, write_agent
from tests.tables import create_tables

__all__ = ["env", "flask"]


@pytest.fixture
def whole(tmp_path: Path, env: dict[str, str]) -> Flask:
    write_agent(tmp_path / "agents", [])
    app = app_of(tmp_path / "agents", {**env, "SLIPWAY_HOME": str(tmp_path), "RELOAD": "false"})
    create_tables(app.extensions["slipway"].infra.db.engine)
    return app


def published(flask: Flask_, agents: Path, prompt: str) -> str:
    write_agent(agents, [], prompt=prompt)
    before = {
        row["version"] for row in json.loads(flask("agents", "versions", "probe", "--json").stdout)["data"]
    }
    found = json.loads(flask("agents", "publish", "probe", "--json").stdout)["data"]
    [new] = {row["version"] for row in found} - before
    return str(new)


def test_version_is_pinned_and_rolled_back(flask: Flask_, tmp_path: Path) -> None:
    said = flask("agents", "versions", "probe").stdout
    assert said == "No version is published.\nprobe is served from its folder.\n"
    first, second = (published(flask, tmp_path / "agents", text) for text in ("First.", "Second."))
    assert f"probe is served from version {first}." in flask("agents", "pin", "probe", first).stdout
    assert f"probe is served from version {second}." in flask("agents", "pin", "probe", second).stdout
    assert f"probe is served from version {first}." in flask("agents", "rollback", "probe").stdout
    assert "probe is served from its folder." in flask("agents", "unpin", "probe").stdout
    assert "has no published version" in flask("agents", "pin", "probe", "0" * 12, code=1).stderr
    assert "There is no agent named nobody." in flask("agents", "versions", "nobody", code=1).stderr


@pytest.mark.parametrize(("share", "told"), [("5%", "5%"), ("12.5", "12.5%")])
def test_canary_is_shown_until_it_is_ended(flask: Flask_, tmp_path: Path, share: str, told: str) -> None:
    first, second = (published(flask, tmp_path / "agents", text) for text in ("First.", "Second."))
    assert (
        "No version of probe is pinned"
        in flask("agents", "canary", "probe", second, "--share", share, code=1).stderr
    )
    flask("agents", "pin", "probe", first)
    said = flask("agents", "canary", "probe", second, "--share", share).stdout
    assert f"Canary {second}, {told} since" in said and "on trial" in said and "Verdict: waiting." in said
    assert "ended at" in flask("agents", "end-canary", "probe").stdout
    assert "probe has no canary." in flask("agents", "end-canary", "probe", code=1).stderr
    for wrong in ("0.5%", "51%", "x"):
        flask("agents", "canary", "probe", second, "--share", wrong, code=2)
