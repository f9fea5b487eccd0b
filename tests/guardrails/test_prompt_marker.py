"""Marker of system prompts: found in any chunking, and nothing else held back or cut."""

from __future__ import annotations

import random

import pytest

from service.guardrails.prompt_marker import REMOVED, MarkerFilter, marker_of, with_marker, without_prompt

MARKER = marker_of("a-secret")
PROMPT = with_marker("Be good.", MARKER)


def told(pieces: list[str], marker: str = MARKER) -> tuple[str, bool]:
    one = MarkerFilter(marker)
    return "".join(map(one.feed, pieces)) + one.close(), one.found


@pytest.mark.parametrize(
    "text", [PROMPT, PROMPT.upper(), f"Sure: {PROMPT}", f"é İ {MARKER} {MARKER}", MARKER]
)
def test_text_is_cut_at_the_marker_in_any_chunking(text: str) -> None:
    whole, found = told([text])
    assert found and whole.endswith(REMOVED) and "Be good" not in whole and MARKER not in whole.lower()
    assert text.startswith(whole.removesuffix(REMOVED))
    chance = random.Random(1)
    for _ in range(50):
        cuts = sorted(chance.sample(range(1, len(text)), min(7, len(text) - 1)))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert told(pieces) == (whole, True)
    assert told(list(text)) == (whole, True)


def test_other_text_goes_on_at_once() -> None:
    one = MarkerFilter(MARKER)
    for piece in ("The refund ", "is #", "1", " of: #", "a ", "b"):
        one.feed(piece)
    assert told(["The #", "#", MARKER[:10], " end", MARKER[:5]]) == (
        f"The ##{MARKER[:10]} end{MARKER[:5]}",
        False,
    )
    assert MarkerFilter(MARKER).feed("Hello, I am here.") == "Hello, I am here."


def test_markers_are_of_one_service_and_stay() -> None:
    assert marker_of("a-secret") == MARKER != marker_of("another")
    assert PROMPT.startswith(f"Reference of these instructions: {MARKER}.") and PROMPT.endswith(
        "\n\nBe good."
    )
    assert with_marker("Be good.", "") == "Be good."
    assert told([PROMPT], "") == (PROMPT, False)


def test_json_is_cut_wherever_it_is() -> None:
    deep = {"a": ["x", f"Be {MARKER.upper()} good"], f"k{MARKER}": 7}
    assert without_prompt(deep, MARKER) == {"a": ["x", f"Be {REMOVED}"], f"k{REMOVED}": 7}
    clean = {"a": ["x", 7, None]}
    assert without_prompt(clean, MARKER) is clean and without_prompt(deep, "") is deep
