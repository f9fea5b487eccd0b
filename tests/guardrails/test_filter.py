"""Filters of a text that arrives in pieces: the same output and findings in any chunking, little held back."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.guardrails.filter import Refused, TextFilter, filtered
from service.guardrails.policy import SideSpec, parse_rails
from service.guardrails.vault import Restorer, Vault
from tests.guardrails.data.sets import look_alikes, sentences
from tests.guardrails.data.values import Values

RULES = [
    {
        "name": "projects",
        "action": "mask",
        "words": ["project bluebird", "layoff*"],
        "patterns": ["PRJ-[0-9]{4,6}"],
    },
    {"name": "tags", "action": "redact", "patterns": ["#[a-z]{3}"]},
]
SIDE: SideSpec = parse_rails(
    {"input": {"personal_data": "redact", "secret": "mask", "control_characters": "mask", "rules": RULES}}
).input
HELD = 200  # characters that may be held back, as the policy of the service says
PIECES = [
    *(
        "jo.doe@example.com",
        "@",
        ".com",
        "jo",
        "+44 20 7946 0958",
        "(212) 555-0123",
        "4111 1111 1111 1111",
        "4111",
        " 1111",
    ),
    *(
        "DE89 3704 0044 0532 0130 00",
        "DE",
        " 89",
        "078-05-1120",
        "ssn ",
        " is my SSN",
        "born on ",
        "12 March 1985",
        "March ",
    ),
    *(
        "12.03.1985",
        "203.0.113.55",
        "version ",
        "2001:db8::1",
        "password: ",
        "hunter2!",
        "sk-ant-api03-",
        "a1B2c3D4" * 6,
        "x" * 90,
    ),
    *(
        "-----BEGIN PRIVATE KEY-----",
        "\n",
        "MIIEvQ" * 20,
        "-----END PRIVATE KEY-----",
        "[EMAIL_1]",
        "[EMAIL",
        "_1]",
        "[",
        "]",
    ),
    *(
        "&#64;",
        "&#6",
        "4;",
        "&",
        "%40",
        "%",
        "\u200b",
        "\u00a0",
        "４１１１",
        "\x00",
        "é",
        "請",
        " ",
        " ",
        ", ",
        ".",
        "-",
        "/",
        "(",
        ")",
    ),
    *(
        "project",
        "  bluebird",
        "layoffs",
        "PRJ-12345",
        "#abc",
        "postgres://u:p4ss@h/x",
        "0171",
        "12",
        "3",
        "y",
        "de ",
        "I am",
        " (at) ",
        " [at] example [dot] org",
        "DE89 3704 0044 0532\n0130 00",
        "\n0130 00",
        "Tel.",
    ),
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


def in_pieces(text: str, sizes: list[int]) -> tuple[str, list[tuple[str, int]], Vault]:
    """Filter a text in pieces of these sizes, over and over; check that little is held back."""
    vault, out, at, turn = Vault(), "", 0, 0
    one = TextFilter(SIDE, vault)
    while at < len(text):
        out += one.feed(text[at : at + sizes[turn % len(sizes)]])
        at += sizes[turn % len(sizes)]
        turn += 1
    out += one.close()
    return out, [(found.kind, found.count) for found in one.findings], vault


@settings(max_examples=300, deadline=None)
@given(TEXTS, st.lists(st.integers(1, 40), min_size=1, max_size=8))
@example("password: " + "x" * 150, [1])  # ends where its window does
def test_any_chunking_is_the_same(text: str, sizes: list[int]) -> None:
    whole = in_pieces(text, [len(text) + 1])
    for some in (sizes, [1]):
        out, found, vault = in_pieces(text, some)
        assert (out, found, vault.to_json()) == (whole[0], whole[1], whole[2].to_json())


def test_sentences_are_the_same_in_any_chunking() -> None:
    chance = random.Random(5)
    texts = [one.text for one in sentences(5)] + look_alikes()
    for start in range(0, len(texts), 12):
        text = chance.choice(["\n", " ", "\n\n"]).join(texts[start : start + 12])
        whole = in_pieces(text, [len(text)])
        for sizes in ([1], [chance.randint(1, 30) for _ in range(9)]):
            assert in_pieces(text, sizes)[:2] == whole[:2]


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_little_is_held_back(text: str) -> None:
    """What is told after each character is what is told in the end, less `HELD` characters of the text."""
    vault = Vault()
    one, told, places = TextFilter(SIDE, vault), "", []
    for letter in text:
        told += one.feed(letter)
        places.append(len(told))
    whole = told + one.close()
    plain = "".join(letter for letter in text if letter != "\x00")
    if whole == plain:  # nothing was found: so many characters came, so many are told
        assert all(len(text[: at + 1].replace("\x00", "")) - place <= HELD for at, place in enumerate(places))


@pytest.mark.parametrize(
    "text",
    [
        "1 " * 400,
        "x" * 900,
        "1" * 900,
        "a.b" * 300,
        "\u200b" * 900,
        "12.03." * 150,
        "請" * 500,
        "1\u200b\u200b" * 300,
        "a\u200b" * 400,
    ],
)
def test_long_runs_flow(text: str) -> None:
    one, told = TextFilter(SIDE), 0
    for at, letter in enumerate(text):
        told += len(one.feed(letter))
        assert at + 1 - told <= HELD
    assert told + len(one.close()) == len(text)


def test_words_go_on_at_once() -> None:
    one = TextFilter(SIDE)
    assert one.feed("Nothing to hide here, ") == "Nothing to hide here, "
    assert one.feed("mail jo@exa") == "mail "
    assert one.feed("mple.com ") == ""
    assert one.feed("now, ok ") == "[EMAIL] now, "  # `ok (at) example.com` may follow
    assert one.feed("so ") == "ok "


def test_long_secrets_are_swallowed_to_their_end() -> None:
    key = Values(1).pem()
    vault = Vault()
    side = parse_rails({"input": {"secret": "redact"}}).input
    text = f"{key}\nand {key}, then\n{'eyJhbGciOiJIUzI1NiJ9.' + 'aB3-' * 300} end"
    out, findings = filtered(text, side, vault)
    assert out == "[SECRET_1]\nand [SECRET_1], then\n[SECRET_2] end"
    assert [one.count for one in findings] == [3]
    assert vault.restore(out) == text
    out, _ = filtered(key[:-40], side, Vault())
    assert out == "[SECRET_1]"  # one without an end as well


def test_refuses_at_the_match() -> None:
    side = parse_rails({"input": {"card": "refuse", "email": "redact"}}).input
    for size in (1, 7, 100):
        one, out = TextFilter(side, Vault()), ""
        with pytest.raises(Refused) as refused:
            for at in range(0, 200, size):
                out += one.feed(
                    "Mail jo@example.com: 4111 1111 1111 1111 is mine, and so on."[at : at + size]
                )
            out += one.close()
        assert refused.value.kind == "card"
        assert out + refused.value.before == "Mail [EMAIL_1]: "
        assert [(found.kind, found.count) for found in one.findings] == [("card", 1), ("email", 1)]
        assert "4111" not in str(refused.value)


@pytest.mark.parametrize("size", [1, 4, 50])
def test_refuses_a_text_that_is_too_long(size: int) -> None:
    one, out = TextFilter(parse_rails({"input": {"max_length": 10}}).input), ""
    with pytest.raises(Refused) as refused:
        for at in range(0, 20, size):
            out += one.feed("0123456789abcdefghij"[at : at + size])
    assert (refused.value.kind, out + refused.value.before) == ("length", "0123456789")


def test_control_characters() -> None:
    side = parse_rails({"input": {"control_characters": "mask"}}).input
    assert filtered("a\x00b\u202ec\td\r\n", side)[0] == "abc\td\r\n"
    with pytest.raises(Refused) as refused:
        filtered("abc\x1bdef", parse_rails({"input": {"control_characters": "refuse"}}).input)
    assert (refused.value.kind, refused.value.before) == ("control_characters", "abc")


def test_nothing_is_done_without_a_policy() -> None:
    text = "jo@example.com [EMAIL_1] \x00"
    assert filtered(text, SideSpec()) == (text, [])


def test_masks_without_a_vault() -> None:
    side = parse_rails({"input": {"email": "redact", "phone": "mask"}}).input
    text = "jo@example.com or +44 20 7946 0958."
    assert filtered(text, side)[0] == "[EMAIL] or [PHONE]."
    assert filtered(text, side, Vault())[0] == "[EMAIL_1] or [PHONE]."


def test_disguises() -> None:
    for text in (
        "4１1１ 1111 1111\u00a01111",
        "4111\u20111111\u20131111\u22121111",
        "4\u200b1\u200b1\u200b1 1111 1111 1111",
        "４１１１１１１１１１１１１１１１",
        "٤١١١١١١١١١١١١١١١",
        "4111&nbsp;1111&#32;1111&#x20;1111",
    ):
        assert filtered(f"Card {text}, ok", SIDE, Vault())[0] == "Card [CARD_1], ok", text
    for text in (
        "jo&#64;example.com",
        "jo&commat;example&period;com",
        "jo＠example．com",
        "jo@exam\u00adple.com",
        "jo%40example.com",
        "jo[at]example[dot]com",
        "JO@EXAMPLE.COM",
    ):
        assert filtered(f"Mail {text}, ok", SIDE, Vault())[0] == "Mail [EMAIL_1], ok", text


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.integers(1, 9))
def test_restores_in_any_chunking(text: str, size: int) -> None:
    vault = Vault()
    side = parse_rails({"input": {"personal_data": "redact", "secret": "redact"}}).input
    out, _ = filtered(text, side, vault)
    one = Restorer(Vault.from_json(vault.to_json()))
    restored = "".join(one.feed(out[at : at + size]) for at in range(0, len(out), size)) + one.close()
    assert restored == vault.restore(out) == text
