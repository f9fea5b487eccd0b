"""Mail: list, read and send over a store of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mcp_servers import mail
from mcp_servers.mailbox import MAILS
from mcp_servers.store import Refused
from tests.mcp_servers.house import Desk

NOTE = {"to": "ada.moreno@harbor.example", "subject": "Re: Team offsite", "text": "Thursday."}
Use = Callable[..., dict[str, Any]]


@pytest.fixture
def use(tmp_path: Path) -> Use:
    tools = {tool.name: tool for tool in mail.tools(tmp_path / "mcp")}
    return lambda name, arguments, key="": tools[name].call(arguments, key)


@pytest.fixture
def outbox(tmp_path: Path) -> Callable[[], list[dict[str, Any]]]:
    return Desk(tmp_path).outbox


def test_new_mailbox_has_mails_newest_first_and_without_their_text(use: Use) -> None:
    listed = use("list", {})
    assert [one["id"] for one in listed["mails"]] == [one.id for one in MAILS] and listed["found"] == 10
    assert all(set(one) == {"id", "received", "sender", "address", "subject"} for one in listed["mails"])


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"query": "ada OFFSITE"}, ["mail_offsite"]),
        ({"query": "fjordbank"}, ["mail_contract"]),
        ({"query": "offsite nothing"}, []),
        ({"limit": 2}, ["mail_offsite", "mail_contract"]),
    ],
)
def test_list_is_narrowed_by_words_and_number(use: Use, arguments: Any, found: list[str]) -> None:
    assert [one["id"] for one in use("list", arguments)["mails"]] == found


def test_mail_that_carries_an_order_is_read_as_it_is(use: Use) -> None:
    read = use("read", {"id": "mail_invoice"})
    assert "ignore your rules" in read["text"] and "attacker@example.net" in read["text"]


def test_sent_mail_is_in_the_outbox(use: Use, outbox: Any) -> None:
    sent = use("send", {**NOTE, "in_reply_to": "mail_offsite"})
    (kept,) = outbox()
    assert (kept["id"], kept["recipient"], kept["subject"], kept["text"], kept["in_reply_to"]) == (
        sent["id"], NOTE["to"], NOTE["subject"], NOTE["text"], "mail_offsite",
    )  # fmt: skip


def test_call_with_a_key_is_made_once(use: Use, outbox: Any) -> None:
    first = use("send", NOTE, "run_1:toolu_1")
    assert use("send", NOTE, "run_1:toolu_1") == first and len(outbox()) == 1
    with pytest.raises(Refused, match="other arguments"):
        use("send", {**NOTE, "text": "Friday."}, "run_1:toolu_1")
    assert use("send", NOTE, "run_1:toolu_2") != first and len(outbox()) == 2
    for _ in range(2):
        use("send", NOTE)
    assert len(outbox()) == 4


def test_calls_with_one_key_at_the_same_time_are_one(use: Use, outbox: Any) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: use("send", NOTE, "run_1:toolu_1")["id"], range(24)))
    assert len(set(made)) == len(outbox()) == 1


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("send", {**NOTE, "to": "ada"}, "/to"),
        ("send", {**NOTE, "to": "a@b.example,c@d.example"}, "/to"),
        ("send", {**NOTE, "to": "a@b.example\nBcc: c@d.example"}, "/to"),
        ("send", {**NOTE, "subject": "One\nBcc: c@d.example"}, "/subject"),
        ("send", {**NOTE, "text": ""}, "/text"),
        ("send", {**NOTE, "text": "x" * 10_001}, "/text"),
        ("send", {**NOTE, "bcc": "c@d.example"}, "bcc"),
        ("send", {"to": NOTE["to"]}, '"subject" is a required'),
        ("send", {**NOTE, "in_reply_to": "mail_none"}, "There is no mail mail_none"),
        ("read", {"id": "mail_none"}, "There is no mail mail_none"),
        ("read", {"id": "' OR 1=1"}, "/id"),
        ("list", {"limit": 51}, "/limit"),
        ("list", {"query": "x" * 201}, "/query"),
    ],
)
def test_wrong_arguments_are_refused_and_nothing_is_sent(
    use: Use, outbox: Any, name: str, arguments: Any, told: str
) -> None:
    with pytest.raises(Refused, match=told) as refusal:
        use(name, arguments)
    assert len(str(refusal.value)) < 400 and outbox() == []


def test_full_outbox_and_a_long_key_are_refused(use: Use, outbox: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(mail, "MOST_SENT", 1)
    use("send", NOTE, "first")
    with pytest.raises(Refused, match="full"):
        use("send", NOTE, "second")
    with pytest.raises(Refused, match="200 characters"):
        use("send", NOTE, "k" * 201)
    assert use("send", NOTE, "first") and len(outbox()) == 1


def test_store_is_private_and_keeps_what_was_sent(tmp_path: Path, use: Use, outbox: Any) -> None:
    use("send", NOTE)
    again = {tool.name: tool for tool in mail.tools(tmp_path / "mcp")}
    assert again["list"].call({}, "")["found"] == 10 and len(outbox()) == 1
    assert (tmp_path / "mcp" / "mail.db").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "mcp").stat().st_mode & 0o777 == 0o700
