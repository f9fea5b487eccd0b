"""Knowledge: how documents are cut, what is found, and that no query breaks it."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.knowledge import MAX_PASSAGE, Knowledge, KnowledgeFault
from service.knowledge.folder import excluded_files

REFUNDS = """\
# Refunds

A word before.

## Within 30 days
Everything is paid back when you ask within 30 days.

```
# not a heading
```

### How to ask
Write to billing.

## Within 30 days
Said again.
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    documents = {
        "billing/refunds.md": REFUNDS,
        "technical/deep/proxy-setup.md": "Set the proxy under Settings. Refunds are not our business.\n",
        "top.md": "# Top\nNothing about money.\n",
        "billing/ignored.csv": "refunds refunds refunds",
    }
    for name, text in documents.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def knowledge(folder: Path) -> Knowledge:
    return Knowledge.load(folder)


def test_documents_are_cut_at_their_headings(knowledge: Knowledge) -> None:
    assert [(one.title, one.uri, one.category) for one in knowledge.passages] == [
        ("Refunds", "knowledge/billing/refunds.md#refunds", "billing"),
        ("Refunds — Within 30 days", "knowledge/billing/refunds.md#within-30-days", "billing"),
        ("Refunds — How to ask", "knowledge/billing/refunds.md#how-to-ask", "billing"),
        ("Refunds — Within 30 days", "knowledge/billing/refunds.md#within-30-days-2", "billing"),
        ("Proxy setup", "knowledge/technical/deep/proxy-setup.md#proxy-setup", "technical"),
        ("Top", "knowledge/top.md#top", ""),
    ]
    assert "# not a heading" in knowledge.passages[1].text
    assert knowledge.categories == {"billing", "technical"}


def test_best_passage_is_first_with_its_quote(knowledge: Knowledge) -> None:
    found = knowledge.search("Can I be paid back after 30 days?")
    assert found[0].uri == "knowledge/billing/refunds.md#within-30-days"
    assert "within 30 days" in found[0].quote
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert found[0].source == {"title": found[0].title, "uri": found[0].uri, "quote": found[0].quote}


def test_words_are_found_in_other_forms_and_spellings(knowledge: Knowledge) -> None:
    assert knowledge.search("REFUNDING")
    assert knowledge.search("ｒｅｆｕｎｄ")


def test_search_within_a_category(knowledge: Knowledge) -> None:
    assert {one.category for one in knowledge.search("ask for refunds")} == {"billing"}
    assert {one.category for one in knowledge.search("ask for refunds", "technical")} == {"technical"}
    assert knowledge.search("refunds", "nowhere") == []


def test_limit(knowledge: Knowledge) -> None:
    assert len(knowledge.search("refunds", limit=1)) == 1
    assert knowledge.search("refunds", limit=0) == []


def test_common_words_alone_find_no_more_than_they_say(knowledge: Knowledge) -> None:
    assert all("zebra" not in one.text for one in knowledge.search("what about the zebra"))
    assert knowledge.search("what about the zebra") == []


@pytest.mark.parametrize(
    "query",
    [
        '"',
        "'",
        "a AND",
        "NEAR(",
        "refunds*",
        "title:refunds",
        "-refunds",
        "(",
        "^",
        "",
        " ",
        "🙂",
        "\0",
        "re\0funds",
        "\ud800",
        "²",
        "日本語",
        "____",
        "; DROP TABLE passage",
        "x" * 100_000,
        "a b " * 50_000,
    ],
)
def test_odd_queries_never_raise(knowledge: Knowledge, query: str) -> None:
    knowledge.search(query)
    knowledge.search(query, query)
    assert knowledge.search("refunds")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(), max_size=200))
def test_any_query_never_raises(knowledge: Knowledge, query: str) -> None:
    knowledge.search(query)


def test_no_documents(tmp_path: Path) -> None:
    assert Knowledge.load(tmp_path).search("refunds") == []


def test_a_long_section_is_cut_between_paragraphs(tmp_path: Path) -> None:
    paragraphs = [f"Paragraph {number}. " + "word " * 100 for number in range(10)]
    (tmp_path / "long.md").write_text("# Long\n\n" + "\n\n".join(paragraphs) + "\n\n" + "x" * 5_000)
    parts = [one.text for one in Knowledge.load(tmp_path).passages]
    assert max(map(len, parts)) <= MAX_PASSAGE + 2
    assert parts[0].startswith("Paragraph 0.")
    assert all(any(paragraph.strip() in part for part in parts) for paragraph in paragraphs)
    assert "".join(parts).count("x") == 5_000


def test_endings_count_in_upper_case_too(tmp_path: Path) -> None:
    (tmp_path / "RULES.HTM").write_text("<h1>Zeppelins</h1><p>They fly.</p>")
    assert [one.uri for one in Knowledge.load(tmp_path).passages] == ["knowledge/RULES.HTM#zeppelins"]
    assert list(excluded_files(tmp_path)) == []


def test_a_document_that_is_not_text_is_named(folder: Path) -> None:
    (folder / "billing" / "bad.md").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(KnowledgeFault) as fault:
        Knowledge.load(folder)
    assert fault.value.path.name == "bad.md"


def test_many_threads_search_at_once(knowledge: Knowledge) -> None:
    expected = knowledge.search("refunds proxy")
    wrong: list[object] = []

    def search() -> None:
        for _ in range(50):
            if knowledge.search("refunds proxy") != expected:
                wrong.append(1)

    fresh = [threading.Thread(target=search) for _ in range(16)]
    for thread in fresh:
        thread.start()
    for thread in fresh:
        thread.join(60)
    assert wrong == []


def test_a_passage_that_only_shares_a_common_word_is_left_out(tmp_path: Path) -> None:
    sections = [f"## Section {number}\nHarbor syncs files.\n" for number in range(20)]
    (tmp_path / "a.md").write_text("# A\n" + "\n".join(sections) + "\n## Proxy\nHarbor knows a proxy.\n")
    found = Knowledge.load(tmp_path).search("harbor proxy")
    assert [one.title for one in found] == ["A — Proxy"]


def test_search_works_after_a_fork_during_a_search(knowledge: Knowledge) -> None:
    expected = knowledge.search("refunds")
    assert knowledge._index is not None
    with knowledge._index._lock:  # as when another thread of the parent is searching
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            os._exit(0 if knowledge.search("refunds") == expected else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_heading_is_read_quickly_and_keeps_the_name_of_a_language(tmp_path: Path) -> None:
    """A tenth of a second would do; a pattern that goes back and forth takes hours."""
    gap = " " * 200_000
    (tmp_path / "languages.md").write_text(f"# Why C#\nTyped.\n# Closed ##\nText.\n# a{gap}b\nMore.\n")
    assert [passage.title for passage in Knowledge.load(tmp_path).passages] == [
        "Why C#",
        "Closed",
        f"a{gap}b",
    ]
