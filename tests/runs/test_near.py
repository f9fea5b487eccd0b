"""Which questions are the same but for how they are written, and which only look so."""

from __future__ import annotations

import pytest

from config import Settings
from service.runs.near import LONGEST, PlainForm

PLAIN = PlainForm(Settings.model_fields["near_stop_phrases"].default.split(","))


@pytest.mark.parametrize(
    "other",
    [
        "what is the refund period",
        "What is the refund period?!",
        "  What  is the\trefund period ?  ",
        "WHAT IS THE REFUND PERIOD?",
        "Hi, what is the refund period?",
        "Hi there! Could you please tell me what is the refund period? Thanks in advance!",
        "What is the refund period, please…",
        "Ｗｈａｔ is the refund\u00a0period？",
        "¿What is the refund period?",
        "I'd like to know what is the refund period.",
        "I’d like to know what is the refund period.",
    ],
)
def test_the_same_question(other: str) -> None:
    assert PLAIN.of(other) == PLAIN.of("What is the refund period?") == "what is the refund period"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Do refunds take 30 days?", "Do refunds not take 30 days?"),
        ("Can I sync offline?", "Can't I sync offline?"),
        ("What is 17% of 20?", "What is 17 of 20?"),
        ("What is 1.5 of 20?", "What is 15 of 20?"),
        ("What is 5?", "What is 5!"),
        ("What is 5?", "What is 5 !"),
        ("What is 5 + 2?", "What is 5 - 2?"),
        ("What is -5 and 2?", "What is 5 and 2?"),
        ("Is it $20 now?", "Is it €20 now?"),
        ("Is it 20 now?", "Is it €20 now?"),
        ("Is C good to learn?", "Is C# good to learn?"),
        ("Is C good to learn?", "Is C++ good to learn?"),
        ("Is it sold in the US?", "Is it sold in the us?"),
        ("What does WHO say?", "What does who say?"),
        ("Tell me about plan A and B", "Tell me about plan A or B"),
        ("Can you swim?", "You swim?"),
        ("Is the résumé here?", "Is the resume here?"),
    ],
)
def test_another_question(one: str, other: str) -> None:
    assert PLAIN.of(one) is None or PLAIN.of(one) != PLAIN.of(other)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Hi, please.",
        "Refunds?",
        "What does `x = 1` do?",
        "Why is f(x) slow?",
        "What is x^2 here?",
        "What is 5² today?",
        "What is ½ of it?",
        "Is getUser safe?",
        "Look at https://example.com please",
        "Is example.com down?",
        'What does "it" mean?',
        "What does 'it' mean?",
        "What does “it” mean?",
        "Translate: could you please tell me",
        "First line\nsecond line",
        "Is <b> bold?",
        "word " * LONGEST,
    ],
)
def test_only_the_same_text_will_do(text: str) -> None:
    assert PLAIN.of(text) is None


def test_the_courtesies_are_a_setting() -> None:
    polite = PlainForm(["bitte", " sagen  Sie mir ", ""])
    assert polite.of("Bitte sagen Sie mir, wo ist es?") == "wo ist es"
    assert polite.of("Please say where it is") == "please say where it is"
    assert PlainForm([]).of("Hi there, you") == "hi there, you".replace(",", "")
