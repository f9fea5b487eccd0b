"""Detector of instructions in text from outside: what it finds, what it leaves alone, and its time."""

from __future__ import annotations

import json

import pytest

from service.guardrails.injection import MOST, find_instructions
from tests.conftest import ROOT
from tests.runs.injected import ALL

TEXTS = json.loads((ROOT / "tests" / "guardrails" / "data" / "injection.json").read_text())


def test_orders_to_a_model_are_found() -> None:
    missed = [text for text in TEXTS["injected"] if not find_instructions(text)]
    assert len(missed) <= len(TEXTS["injected"]) * 0.1, missed


@pytest.mark.parametrize("text", TEXTS["harmless"])
def test_harmless_text_is_left_alone(text: str) -> None:
    assert find_instructions(text) == ()


def test_fresh_harmless_texts() -> None:
    """Texts about commands, security and prompts in six languages, by another hand than the signs."""
    texts = (ROOT / "tests" / "guardrails" / "data" / "fresh_harmless.txt").read_text().splitlines()
    assert len(texts) == 130
    wrong = [text for text in texts if find_instructions(text)]
    assert len(wrong) < len(texts) * 0.02, wrong


def test_documentation_about_all_this_is_left_alone() -> None:
    pages = [path for path in sorted(ROOT.glob("docs/**/*.md")) if find_instructions(path.read_text())]
    assert pages == []


def test_terse_orders_without_a_sign_of_a_model_are_missed() -> None:
    """The figure that docs/untrusted-text.md tells: taint and approvals hold against all of these."""
    found = sum(bool(find_instructions(one.text)) for one in ALL)
    assert len(ALL) * 0.1 < found < len(ALL) * 0.5


HOSTILE = {
    "verbs": "ignore ",
    "almost": "ignore all the the the the the ",
    "addresses": "send a@",
    "assistant": "attention ai assistant ",
    "tags": "<!-- " * 3,
    "blobs": "A" * 64,
    "blobs apart": "A" * 48 + "- ",
    "quotes": 'say "',
    "nothing": "\n",
    "invisible": "\u200b",
    "wide": "\uff21",
    "braces": '{"type" : ',
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_text_ends(kind: str) -> None:
    """Each takes a fraction of a second; a pattern that goes back over the text would take hours."""
    piece = HOSTILE[kind]
    assert find_instructions((piece * (MOST // len(piece) + 1))[:MOST]) in ((), ("smuggled",))


def test_broken_and_empty_texts_are_read() -> None:
    for text in ("", "{", "[1, 2]", '{"a": null}', "\ud800", "\x00", "=" * 100, "A" * 51):
        assert find_instructions(text) == ()
