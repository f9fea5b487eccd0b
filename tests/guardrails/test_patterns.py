"""Patterns and words of rules: what they match, and that no input makes them slow."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.guardrails.filter import TextFilter, filtered
from service.guardrails.patterns import compile_pattern, compile_words
from service.guardrails.policy import SideSpec, parse_rails


def side(words: Sequence[str] = (), patterns: Sequence[str] = ()) -> SideSpec:
    rule = {"name": "rule", "action": "mask", "words": list(words), "patterns": list(patterns)}
    return parse_rails({"input": {"rules": [rule]}}).input


@pytest.mark.parametrize(
    ("words", "text", "out"),
    [
        (["bluebird"], "Bluebird, BLUEBIRD and bluebirds", "[RULE], [RULE] and bluebirds"),
        (["bluebird*"], "bluebirds' song", "[RULE]' song"),
        (["project bluebird"], "Project\n bluebird. project", "[RULE]. project"),
        (["project", "project bluebird"], "project bluebirds project bluebird", "[RULE] bluebirds [RULE]"),
        (["c++"], "C++ or c", "[RULE] or c"),
        (["größe"], "GRÖSSE, Größe", "GRÖSSE, [RULE]"),
        (["機密"], "これは機密です", "これは[RULE]です"),
        (["секрет*"], "Секреты", "[RULE]"),
        (["bomb"], "b\u200bo\u200bm\u200bb and ｂｏｍｂ", "[RULE] and [RULE]"),
    ],
)
def test_words(words: list[str], text: str, out: str) -> None:
    assert filtered(text, side(words))[0] == out


@pytest.mark.parametrize(
    ("pattern", "text", "out"),
    [
        ("PRJ-[0-9]{4,6}", "PRJ-1234 PRJ-1234567 prj-1234 PRJ-12", "[RULE] [RULE]7 prj-1234 PRJ-12"),
        (r"\w{2}\d?\.x", "ab.x ab1.x", "[RULE] [RULE]"),
        (r"#[a-f]{3}", "#abc #xyz", "[RULE] #xyz"),
        (r"[^\s]{3}!", "abc! ab!", "[RULE] ab!"),
        (r"\(a\)", "(a) a", "[RULE] a"),
        ("A?B", "AB B", "[RULE] [RULE]"),
    ],
)
def test_patterns(pattern: str, text: str, out: str) -> None:
    assert filtered(text, side(patterns=[pattern]))[0] == out


@pytest.mark.parametrize(
    "pattern",
    [
        "a+",
        "a*",
        "a|b",
        "(a)",
        "^a",
        "a$",
        "[a",
        "a{200}",
        "a{3,2}",
        "a?",
        "a{0,3}",
        "[z-a]",
        "\\b",
        "a{",
        "{2}",
        "a\\",
    ],
)
def test_refuses_what_it_cannot_bound(pattern: str) -> None:
    with pytest.raises(ValueError):
        compile_pattern(pattern)


@pytest.mark.parametrize("phrase", ["", " ", "*", "a* b*c", "x" * 121])
def test_refuses_phrases(phrase: str) -> None:
    with pytest.raises(ValueError):
        compile_words(phrase)


ITEMS = st.sampled_from(["a", "b", "[ab]", "[^a]", "a?", "b{2}", "[ab]{1,3}", "c{0,2}", "."])


@settings(max_examples=200, deadline=None)
@given(st.lists(ITEMS, min_size=1, max_size=6).map("".join), st.text("abc", max_size=12))
def test_matches_as_re_does(pattern: str, text: str) -> None:
    """The longest match is one of `re` too, and none is longer; without the end, more may only be added."""
    try:
        compiled = compile_pattern(pattern)
    except ValueError:
        return
    ends = [end for end in range(len(text) + 1) if re.fullmatch(pattern, text[:end])]
    assert compiled.match(text, 0, len(text), final=True) == (max(ends, default=None), False)
    for cut in range(len(text) + 1):
        end, is_open = compiled.match(text, 0, cut, final=False)
        if not is_open:
            assert end == max(ends, default=None)


@pytest.mark.parametrize(
    "pattern", ["a{0,39}a{0,39}a{0,39}b", "[ab]{0,40}[ab]{0,40}[ab]{0,38}c", r"\w{1,60}\w{1,58}!"]
)
def test_no_input_is_slow(pattern: str) -> None:
    """A backtracking matcher needs thousands of steps for each of these words, which are 119,000 characters."""
    text = ("a" * 118 + " ") * 1_000
    assert filtered(text, side(patterns=[pattern])) == (text, [])


def test_a_phrase_is_held_only_while_it_may_go_on() -> None:
    one = TextFilter(side(["project bluebird"]))
    assert one.feed("a project ") == "a "
    assert one.feed("blue") == ""
    assert one.feed("print. ") == "project blueprint. "
