"""The client knows the contract that the server has: routes, fields, options, version."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from typing import Any, get_args, get_type_hints

import pytest
import slipway_client
from slipway_client import account_models, kept_resources, models, resources
from slipway_client.calls import Call
from slipway_client.endpoint import Resource
from slipway_client.events import LAST
from slipway_client.following import Place
from slipway_client.parsing import Model

import service
from service.types import LAST_EVENTS
from tests import conftest as parts

NOT_YET = {"on_cap"}  # options of the contract that this server does not have yet
SCHEMAS: dict[type[Model], str] = {
    models.Agent: "AgentView",
    models.Usage: "UsageShape",
    models.ToolUse: "ToolShape",
    models.Source: "SourceShape",
    models.RunItem: "RunItem",
    models.RunResult: "RunResult",
    models.Step: "StepShape",
    models.Feedback: "FeedbackShape",
    models.File: "FileShape",
    models.ForkedFrom: "ForkedFrom",
    models.ForkDifference: "ForkDifference",
    models.Run: "RunView",
    models.Queued: "Queued",
    models.SessionItem: "SessionItem",
    models.Session: "SessionView",
    models.SessionWithMessages: "SessionWithMessages",
    models.Message: "MessageView",
    models.ApprovalTool: "ToolView",
    models.Untrusted: "UntrustedView",
    models.Approval: "ApprovalView",
    account_models.UsageLine: "UsageLine",
    account_models.Budget: "BudgetView",
    account_models.NoteItem: "NoteItem",
    account_models.Note: "NoteView",
    account_models.Me: "Me",
    account_models.Tokens: "TokenPair",
}
LEFT_OUT = {
    models.Usage: {"usage_source"},
    account_models.Me: {"budget"},  # `usage.budget` lists it
    account_models.Tokens: {"token_type"},
}
ARGUMENTS: dict[str, Any] = {"input": "?", "score": 1, "from_step": 1, "task": "run_1", "cron": "* * * * *"}
CLASSES = (
    resources._Agents,
    resources._Tasks,
    resources._Runs,
    resources._Approvals,
    resources._Usage,
    kept_resources._Account,
    kept_resources._Sessions,
    kept_resources._Schedules,
    kept_resources._Memory,
)


@pytest.fixture(scope="module")
def document(server: parts.Slipway) -> dict[str, Any]:
    return server.description.document


def calls() -> list[tuple[str, Call[Any]]]:
    """Make the call of each method of each resource."""
    made = []
    for owner in CLASSES:
        for name, method in vars(owner).items():
            build = getattr(method, "_build", None)
            if build is None or name == "wait":  # which is `runs.get`
                continue
            needed = [
                each.name
                for each in list(inspect.signature(build).parameters.values())[1:]
                if each.default is each.empty and each.kind is each.POSITIONAL_OR_KEYWORD
            ]
            given = {each: ARGUMENTS.get(each, f"{each}_1") for each in needed}
            call = build(Resource(None), **given)  # type: ignore[arg-type]
            made.append((f"{owner.__name__}.{name}", call.call() if isinstance(call, Place) else call))
    return made


def test_every_model_is_compared() -> None:
    known = {
        each
        for module in (models, account_models)
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Model) and each.__module__ == module.__name__
    }
    assert known == set(SCHEMAS) | {account_models.Schedule}


@pytest.mark.parametrize("answer", SCHEMAS, ids=lambda answer: answer.__name__)
def test_models_have_the_fields_of_the_server(document: dict[str, Any], answer: type[Model]) -> None:
    properties = document["components"]["schemas"][SCHEMAS[answer]]["properties"]
    mine = {each.name for each in fields(answer)} - {"raw"}
    assert mine | LEFT_OUT.get(answer, set()) == set(properties)
    hints = get_type_hints(answer)
    for name in mine:
        if any(option.get("type") == "null" for option in properties[name].get("anyOf", ())):
            assert type(None) in get_args(hints[name]), name


@pytest.mark.parametrize(("name", "call"), calls(), ids=lambda value: value if isinstance(value, str) else "")
def test_calls_are_routes_of_the_server(document: dict[str, Any], name: str, call: Call[Any]) -> None:
    paths = {re.sub(r"\{\w+\}", "{}", path): methods for path, methods in document["paths"].items()}
    path = re.sub(r"/(agent|run_id|session_id|approval_id|schedule_id|key)_1", "/{}", call.path)
    if "/schedules" in path and path not in paths:
        pytest.skip("this server has no schedules yet")
    operation = paths[path][call.method.lower()]
    parameters = {each["name"] for each in operation.get("parameters", ())}
    assert set(call.query) <= parameters
    assert ("Idempotency-Key" in parameters) == ("Idempotency-Key" in call.headers)
    if body := operation.get("requestBody"):
        shape = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        assert set(call.body or {}) <= set(document["components"]["schemas"][shape]["properties"])


@pytest.mark.parametrize(
    ("options", "schema"), [(resources.RunOptions, "RunBody"), (resources.TaskOptions, "TaskBody")]
)
def test_options_are_fields_of_the_server(document: dict[str, Any], options: type, schema: str) -> None:
    theirs = set(document["components"]["schemas"][schema]["properties"])
    assert set(get_type_hints(options)) - NOT_YET == theirs - {"input", "messages"} - NOT_YET | {
        "idempotency_key"
    }


def test_last_events_are_those_of_the_server() -> None:
    assert {str(event) for event in LAST_EVENTS} == LAST


def test_the_version_is_that_of_the_contract(document: dict[str, Any]) -> None:
    assert slipway_client.__version__ == document["info"]["version"] == service.__version__
