"""Work that guardrails do for one request or one answer: bounded, counted the same in any chunking."""

from __future__ import annotations

import random

import pytest

from service.errors import GuardrailRefused
from service.guardrails import filter as filters
from service.guardrails.effort import LOOK, MOST, RULE, Effort
from service.guardrails.filter import Refused, TextFilter, filtered
from service.guardrails.policy import SideSpec, parse_rails
from service.guardrails.relayed.sides import Inward, Outward
from service.guardrails.relayed.texts import screened
from service.guardrails.vault import Vault
from service.guardrails.whole_texts import WholeTexts
from service.guardrails.windows import decide
from tests.guardrails.data.mixed import mixed_texts

SIDE: SideSpec = parse_rails({"input": {"personal_data": "redact", "secret": "redact"}}).input
HOSTILE = "(1" * 100


def nearly_spent(left: int) -> Effort:
    effort = Effort()
    effort.spend(MOST - left)
    return effort


def test_long_text_is_refused_at_once() -> None:
    with pytest.raises(Refused, match="length"):
        filtered("a " * (MOST // 2), SIDE)


def test_places_cost_more_than_characters() -> None:
    filtered("words " * 100, SIDE, effort=nearly_spent(1_000))
    with pytest.raises(Refused, match="length"):
        filtered(HOSTILE, SIDE, effort=nearly_spent(1_000))


def test_rules_cost_where_they_may_begin() -> None:
    rules = [{"name": "x", "action": "mask", "words": [f"a{number}" for number in range(50)]}]
    side = parse_rails({"input": {"rules": rules}}).input
    for text, units in (("a1 ", LOOK + 50 * RULE), ("c1 ", 0)):
        effort = Effort()
        filtered(text * 10, side, effort=effort)
        assert MOST - effort.left - 20 - 10 * len(text) == 10 * units


def test_the_same_in_any_chunking() -> None:
    some = random.Random(24)
    for text in [one.text for one in mixed_texts()] + [HOSTILE]:
        whole, pieces = Effort(), Effort()
        filtered(text, SIDE, effort=whole)
        one, at = TextFilter(SIDE, effort=pieces), 0
        while at < len(text):
            size = some.randint(1, 12)
            one.feed(text[at : at + size])
            at += size
        one.close()
        assert pieces.left == whole.left, text


def test_texts_of_a_request_count_together() -> None:
    texts = WholeTexts(SIDE, None, nearly_spent(10_000))
    with pytest.raises(Refused, match="length"):
        texts.json([f"{HOSTILE}{number}" for number in range(10)])


def test_a_text_that_is_known_costs_nothing() -> None:
    texts = WholeTexts(SIDE, None, nearly_spent(10_000))
    assert len(texts.json([HOSTILE] * 10)) == 10


@pytest.mark.parametrize("kind", [Inward, Outward])
def test_texts_of_a_relayed_body_count_together(kind: type[Inward] | type[Outward]) -> None:
    blocks = [{"content": "a " * (MOST // 8)} for _ in range(5)]
    with pytest.raises(Refused, match="length"):
        screened(blocks, kind(SIDE, Vault()))


def test_refusal_is_no_other_error() -> None:
    """Text before the end of the effort may go on, as before any refusal."""
    one = TextFilter(SIDE, effort=nearly_spent(200))
    assert one.feed("some words, ") == "some words, "
    with pytest.raises(Refused) as raised:
        one.feed("and more " * 50)
    assert raised.value.kind == "length" and not isinstance(raised.value, GuardrailRefused)


@pytest.mark.parametrize("unit", ["-", "+1"])
def test_control_characters_are_taken_out_of_a_piece_at_once(
    unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at every place between two of them cost 16 seconds of a processor for 1 MiB."""
    looks = []
    monkeypatch.setattr(filters, "decide", lambda *about, **final: looks.append(1) or decide(*about, **final))
    actions = dict.fromkeys(("personal_data", "secret", "control_characters"), "mask")
    side = parse_rails({"input": actions}).input
    cleaned, counts = [], []
    for text in (unit * 500, "\x00".join(unit * 500)):
        looks.clear()
        cleaned.append(filtered(text, side)[0])
        counts.append(len(looks))
    assert cleaned[0] == cleaned[1] and counts[0] == counts[1]
