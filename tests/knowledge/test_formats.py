"""Formats of documents: what becomes of each, and that no file stops the catalog."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.agents.catalog import AgentCatalog
from service.knowledge import Knowledge, KnowledgeFault
from service.knowledge.extract import MAX_PAGES, Unreadable
from service.knowledge.formats import read
from service.knowledge.passages import Passage, passages
from service.knowledge.words import query_terms, quoted
from tests.agents.test_checks import AVAILABLE
from tests.knowledge.pdfs import bomb, encrypted, pdf

HTML = """<!doctype html><html><head><title>Harbor  manual</title><style>p {color: red}</style></head><body>
<script>alert("script text")</script><h1>Moorings</h1><p>A mooring costs 12 euros <b>a night</b>.</p>
<h2>Winter &amp; storage</h2><ul><li>Boats are lifted in October.</li></ul><noscript>no script</noscript>
<table><tr><th>size</th><th>price</th></tr><tr><td>10 m</td><td>900</td></tr></table>
<iframe src="http://127.0.0.1:9/"></iframe><form><input value="field"></form></body></html>"""


def cut(data: bytes, kind: str, name: str = "some-file.x") -> list[Passage]:
    return list(passages(read(data, kind, name), "knowledge/x", ""))


def test_html_is_cut_at_its_headings_without_scripts() -> None:
    found = cut(HTML.encode(), "html")
    assert [(one.title, one.uri) for one in found] == [
        ("Moorings", "knowledge/x#moorings"),
        ("Moorings — Winter & storage", "knowledge/x#winter-storage"),
    ]
    text = read(HTML.encode(), "html", "x").text
    assert "12 euros a night" in found[0].text and "900" in found[1].text
    assert not {"alert", "script text", "red", "no script", "field"} & set(text.replace("(", " ").split())
    assert read(HTML.encode(), "html", "x").title == "Harbor manual"


def test_pdf_has_its_pages_as_places() -> None:
    data = pdf("Berths are 12 (twelve) metres.", "", "Fuel is at pier 3.\nAsk there.", title="Guide")
    assert [(one.title, one.uri, one.text) for one in cut(data, "pdf")] == [
        ("Guide — page 1", "knowledge/x#page=1", "Berths are 12 (twelve) metres."),
        ("Guide — page 3", "knowledge/x#page=3", "Fuel is at pier 3.\nAsk there."),
    ]
    assert cut(pdf("x y"), "pdf")[0].title == "Some file — page 1"


def test_text_is_cut_at_its_paragraphs_and_has_no_headings() -> None:
    found = cut(b"\xef\xbb\xbf# Not a heading\n\nA \x00 B", "text", "some-file.txt")
    assert [(one.title, one.text) for one in found] == [("Some file", "# Not a heading\n\nA \ufffd B")]


def test_encrypted_pdf_opens_without_a_password_only() -> None:
    assert cut(encrypted(""), "pdf")[0].text == "A secret page."
    with pytest.raises(Unreadable, match="encrypted"):
        read(encrypted("x"), "pdf", "x.pdf")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "broken"),
        (b"no pdf at all", "broken"),
        (pdf("x")[:200], "broken"),
        (pdf(""), "no text"),
        (pdf(*[""] * (MAX_PAGES + 1)), f"more than {MAX_PAGES} pages"),
        (bomb(2_000), "broken, or too complicated|no text"),
        (b"x" * (10 * 1024 * 1024 + 1), "larger than 10 MiB"),
    ],
    ids=["empty", "other", "cut off", "blank", "long", "bomb", "large"],
)
def test_hostile_pdf_is_a_fault(data: bytes, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        read(data, "pdf", "x.pdf")


@pytest.mark.parametrize("data", [b"<div>" * 100_000, b"<!--", b"<a" * 50_000, b"\x00<p>x"])
def test_odd_html_is_read_or_a_fault(data: bytes) -> None:
    try:
        cut(data, "html")
    except Unreadable as fault:
        assert "broken" in str(fault)


def test_file_that_cannot_be_read_is_a_fault_of_its_agent_alone(tmp_path: Path) -> None:
    for name in ("good", "bad"):
        (tmp_path / name / "knowledge").mkdir(parents=True)
        (tmp_path / name / "agent.yaml").write_text(
            "description: x\npattern: react\ntools: [search_knowledge]\n"
        )
        (tmp_path / name / "prompt.md").write_text("x")
        (tmp_path / name / "knowledge" / "a.pdf").write_bytes(pdf("A page.") if name == "good" else b"no pdf")
    catalog = AgentCatalog(tmp_path, AVAILABLE)
    assert list(catalog.agents) == ["good"]
    [fault] = catalog.faults
    assert (fault.file, fault.detail) == (
        f"{tmp_path}/bad/knowledge/a.pdf",
        "is broken, or too complicated to be read as PDF",
    )
    with pytest.raises(KnowledgeFault) as raised:
        Knowledge.load(tmp_path / "bad" / "knowledge")
    assert raised.value.path.name == "a.pdf"


TEXTS = st.text(st.sampled_from(string.ascii_letters + "  \n\n.#`é猫🙂\u200b-"), max_size=4_000)


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.sampled_from(["markdown", "text"]), st.text(st.sampled_from("abcé猫 "), max_size=20))
def test_every_passage_and_quote_is_in_the_document(text: str, kind: str, query: str) -> None:
    document = read(text.encode(), kind, "x.md")
    found = list(passages(document, "x", ""))
    for one in quoted(found, query_terms(query)):
        assert one.quote and one.quote in one.text and one.text in document.text
    if kind == "text":
        assert "".join("".join(one.text for one in found).split()) == "".join(text.split())


def test_every_quote_of_a_page_is_in_its_text() -> None:
    for data, kind in ((HTML.encode(), "html"), (pdf("Fuel is at pier 3. " * 30, "Berths. " * 60), "pdf")):
        document = read(data, kind, "x")
        for one in quoted(passages(document, "x", ""), query_terms("pier october berths")):
            assert one.quote in one.text and one.text in document.text
