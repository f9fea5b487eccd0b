"""Policies of tools: domains of addresses and amounts in arguments, and their spelling in `agent.yaml`."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from service.tools.bounds import ToolPolicy

MAIL = ToolPolicy(allowed_domains={"to": ("example.org", "*.harbor.test")})
PAY = ToolPolicy.model_validate({"max_amount": {"amount": "100.00"}})


def pointers(policy: ToolPolicy, arguments: dict[str, Any]) -> list[tuple[int | str, ...]]:
    return [one["loc"] for one in policy.faults(arguments)]


@pytest.mark.parametrize(
    "address",
    [
        "ada@example.org",
        "ada+tag@EXAMPLE.org",
        "ada@mail.harbor.test",
        "https://example.org",
        "HTTP://Example.Org:8080/path?next=http://evil.test#x@evil.test",
        "https://example.org./",
        "https://a.b.harbor.test/",
    ],
)
def test_address_at_an_allowed_domain_passes(address: str) -> None:
    assert MAIL.faults({"to": address}) == []
    assert MAIL.faults({"to": [address, address]}) == []


@pytest.mark.parametrize(
    "address",
    [
        "ada@evil.test",
        "ada@mail.example.org",
        "ada@harbor.test",
        "ada@notharbor.test",
        "ada@evil-example.org",
        "ada@example.org.evil.test",
        "ada@example.org,eve@evil.test",
        "ada@example.org\nBcc: eve@evil.test",
        "Ada <ada@example.org>",
        '"eve@evil.test"@example.org',
        "eve%evil.test@example.org",
        "@evil.test:ada@example.org",
        "eve@evil.test@example.org",
        "ada@exаmple.org",
        "ada@example.org\u200b",
        "https://example.org@evil.test/",
        "https://evil.test@example.org/",
        "https://evil.test\\@example.org/",
        "https://evil.test/?https://example.org",
        "https://exam%70le.org/",
        "https://example.org:evil/",
        "https://faß.example.org/",
        "https://[::1]/",
        "https:///example.org",
        "https:example.org",
        "//example.org/",
        "ftp://example.org/",
        "javascript://example.org/%0aalert(1)",
        " https://example.org/",
        "https://example.org/\t",
        "example.org",
        "",
        7,
        True,
    ],
)
def test_any_other_text_is_beyond_the_bound(address: Any) -> None:
    assert pointers(MAIL, {"to": address}) == [("to",)]


def test_each_place_in_a_list_is_named() -> None:
    assert pointers(MAIL, {"to": ["a@evil.test", "b@example.org", ["c@evil.test"]]}) == [
        ("to", 0),
        ("to", 2, 0),
    ]
    assert pointers(MAIL, {"to": {"a@evil.test": True}}) == [("to", "a@evil.test"), ("to", "a@evil.test")]


def test_argument_left_out_is_within() -> None:
    assert MAIL.faults({}) == MAIL.faults({"to": None}) == MAIL.faults({"to": [], "cc": "a@evil.test"}) == []


@pytest.mark.parametrize("amount", [100, 100.0, "100", "100.00", "1e2", -100, 0, "0.01", [99.99, "99.99"]])
def test_amount_within_its_bound(amount: Any) -> None:
    assert PAY.faults({"amount": amount}) == []


@pytest.mark.parametrize(
    "amount",
    [
        101,
        100.01,
        "100.000000000000000000001",
        "1e3",
        -100.01,
        "nan",
        "inf",
        float("inf"),
        "100 EUR",
        "",
        True,
        "9" * 41,
        "0x10",
        10**60,
    ],
)
def test_amount_beyond_its_bound(amount: Any) -> None:
    assert pointers(PAY, {"amount": amount}) == [("amount",)]


def test_messages_repeat_no_argument() -> None:
    [fault] = MAIL.faults({"to": "secret@evil.test"})
    assert (fault["msg"], fault["input"]) == (
        "only addresses at example.org, *.harbor.test are allowed",
        None,
    )


@pytest.mark.parametrize(
    "spec",
    [
        {"max_amount": {"amount": 99.95}},
        {"max_amount": {"amount": "1,000"}},
        {"max_amount": {"amount": "-1"}},
        {"max_amount": {"amount": True}},
        {"allowed_domains": {"to": ["https://example.org"]}},
        {"allowed_domains": {"to": ["*"]}},
        {"allowed_domains": {"to": ["a.*.org"]}},
        {"allowed_domains": {"to": ["exаmple.org"]}},
        {"roles": []},
        {"roles": ["boss"]},
        {"max_amounts": {}},
    ],
)
def test_policy_that_bounds_nothing_exactly_is_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ToolPolicy.model_validate(spec)
