"""Policies of guardrails: how they are written, and the stricter of two."""

from __future__ import annotations

from typing import Any

import pytest

from service.guardrails.filter import filtered
from service.guardrails.policy import KINDS, Action, Rail, SideSpec, parse_rails, stricter


def test_kinds_follow_personal_data() -> None:
    side = parse_rails({"input": {"personal_data": "redact", "card": "refuse", "ip": "allow"}}).input
    assert {kind: side.action_of(kind).value for kind in KINDS} == {
        **dict.fromkeys(KINDS, "redact"),
        "card": "refuse",
        "ip": "allow",
        "secret": "allow",
    }


@pytest.mark.parametrize(
    ("data", "where"),
    [
        ({"inputs": {}}, "/inputs: There is no such field"),
        ({"input": {"email": "hide"}}, "/input/email: "),
        ({"output": {"max_length": 0}}, "/output/max_length: "),
        ({"input": {"rules": [{"name": "a", "action": "mask"}]}}, "/input/rules/0: needs words or patterns"),
        (
            {"input": {"rules": [{"name": "email", "action": "mask", "words": ["x"]}]}},
            "/input/rules/0: a rule",
        ),
        ({"input": {"rules": [{"name": "a", "action": "mask", "words": ["*"]}]}}, "/input/rules/0/words/0: "),
        (
            {"input": {"rules": [{"name": "a", "action": "mask", "patterns": ["(a+)+"]}]}},
            "/input/rules/0/patterns/0: '(a+)+",
        ),
        ({"input": []}, "/input: "),
    ],
)
def test_errors_point_at_the_field(data: dict[str, Any], where: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_rails(data)
    assert str(error.value).startswith(where)
    assert "Value error" not in str(error.value)


def test_the_stricter_of_two() -> None:
    rule = {"name": "a", "action": "mask", "words": ["x"]}
    one = parse_rails({"input": {"email": "redact", "secret": "mask", "max_length": 100, "rules": [rule]}})
    other = parse_rails(
        {"input": {"personal_data": "mask", "max_length": 50, "rules": [rule]}, "output": {"ip": "refuse"}}
    )
    both = stricter(one, other)
    assert both == stricter(other, one)
    assert both.input.action_of("email") is Action.MASK
    assert both.input.action_of("secret") is Action.MASK
    assert both.output.action_of("ip") is Action.REFUSE
    assert both.output.action_of("email") is Action.ALLOW
    assert (both.input.max_length, both.output.max_length) == (50, None)
    assert len(both.input.rules) == 1
    assert stricter(Rail(), Rail()) == parse_rails(both.model_dump()) or both.acts
    assert not stricter(Rail(), Rail()).acts


def test_a_policy_of_json_is_itself_again() -> None:
    rail = parse_rails({"input": {"personal_data": "redact"}, "output": {"secret": "refuse"}})
    assert parse_rails(rail.model_dump(mode="json")) == rail
    assert rail.acts and rail.input.acts and not SideSpec().acts


def test_an_allowed_rule_is_off() -> None:
    side = parse_rails({"input": {"rules": [{"name": "a", "action": "allow", "words": ["x"]}]}}).input
    assert filtered("x", side) == ("x", [])
    assert not side.acts
