"""`flask workspaces`, and users of other workspaces than `default`."""

from __future__ import annotations

import json

from service.wiring import Services
from tests.cli.house import Flask_, env, flask, services, table, whole

__all__ = ["env", "flask", "services", "whole"]


def test_workspaces_and_their_users(flask: Flask_, services: Services) -> None:
    assert "Added acme (wsp_" in flask("workspaces", "add", "acme").stdout
    assert [line[1] for line in table(flask("workspaces", "list"))] == ["NAME", "default", "acme"]
    assert "taken" in flask("workspaces", "add", "acme", code=1).output
    for name in ("ada", "bob"):
        flask("users", "add", name, "--workspace", "acme", "--password-stdin", stdin="a-password\n")
    assert [line[1] for line in table(flask("users", "list", "--workspace", "acme"))] == [
        "USERNAME",
        "ada",
        "bob",
    ]
    assert "WORKSPACE_ID" not in flask("users", "list", "--workspace", "acme").stdout
    everybody = json.loads(flask("users", "list", "--json").stdout)
    assert [each["username"] for each in everybody].count("ada") == 2
    flask("users", "disable", "ada", "--workspace", "acme")
    other, ada = services.auth.users.by_name("ada", "acme"), services.auth.users.by_name("ada")
    assert other is not None and ada is not None
    assert (other.disabled, ada.disabled) == (True, False)
    assert "There is no user bob" in flask("users", "disable", "bob", code=1).output
    assert "There is no workspace none" in flask("users", "list", "--workspace", "none", code=1).output
    shown = flask("budgets", "set", f"workspace:{other.workspace_id}", "5", "--period", "month")
    assert f"workspace:{other.workspace_id}" in shown.stdout
    flask("workspaces", "rename", "acme", "acme-two")
    flask("workspaces", "disable", "acme-two")
    assert services.auth.workspaces.named("acme-two").disabled
    flask("workspaces", "disable", "acme-two", "--undo")
    assert "has users" in flask("workspaces", "delete", "acme-two", code=1).output
    assert "always there" in flask("workspaces", "delete", "default", code=1).output
    for name in ("ada", "bob"):
        user = services.auth.users.by_name(name, "acme-two")
        assert user is not None
        services.auth.users.delete(user.id)
    flask("workspaces", "delete", "acme-two")
    assert [line[1] for line in table(flask("workspaces", "list"))] == ["NAME", "default"]


def test_guardrails_of_a_workspace(flask: Flask_) -> None:
    flask("workspaces", "guardrails", "default", "-", stdin="output: {secret: mask}\n")
    assert flask("workspaces", "guardrails", "default").stdout == "output:\n  secret: mask\n"
    for text, why in (
        ("output: {secret: hide}", "/guardrails/output/secret: Input should be"),
        ("outputs: {}", "/guardrails/outputs: There is no such field"),
        ("input: {}\noutput: ]", "not YAML, in line 2"),
        ("- a", "must hold the fields of `guardrails`"),
    ):
        refused = flask("workspaces", "guardrails", "default", "-", stdin=f"{text}\n", code=1).output
        assert why in refused, refused
    flask("workspaces", "guardrails", "default", "--remove")
    assert flask("workspaces", "guardrails", "default").stdout == "{}\n"
