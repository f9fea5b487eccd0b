"""Documents of workspaces: added, replaced, deleted, found by their own workspace only, within its bounds."""

from __future__ import annotations

from functools import partial
from itertools import count
from pathlib import Path

import pytest

from service.errors import Invalid, NotFound, TooMany
from service.knowledge import Knowledge
from service.knowledge import documents as documents_module
from service.knowledge.documents import Limits, NewDocument
from service.knowledge.passages import Passage
from service.knowledge.versions import DocumentVersions
from service.knowledge.words import Found, Statistics, ranked
from service.types import DEFAULT_WORKSPACE
from tests.knowledge.conftest import Make
from tests.knowledge.house import AGENT, House

OTHER = "wsp_other"
RETURNS = "# Returns\nA kettle is taken back within 40 days.\n\n## Damaged\nSend a photo of the box.\n"


def test_document_is_found_with_its_place_and_a_verbatim_quote(house: House) -> None:
    document_id = house.add("returns.md", RETURNS)
    first, *_ = house.knowledge().search("When can I bring the kettle back?")
    assert first.source == {
        "title": "Returns",
        "uri": f"document:{document_id}#returns",
        "quote": "A kettle is taken back within 40 days.",
    }
    row = house.documents.get(DEFAULT_WORKSPACE, AGENT, document_id)
    assert first.quote in row["text"] and row["text"] == RETURNS
    assert house.titles("photo") == ["Returns — Damaged"]


def test_no_workspace_finds_what_another_has_added(house: House) -> None:
    house.add("returns.md", RETURNS)
    document_id = house.add("kettles.md", "# Kettles\nOurs are copper.", OTHER)
    assert house.titles("kettle") == ["Returns"]
    assert house.titles("kettle copper", OTHER) == ["Kettles"]
    with pytest.raises(NotFound):
        house.documents.get(DEFAULT_WORKSPACE, AGENT, document_id)
    with pytest.raises(NotFound):
        house.documents.delete(DEFAULT_WORKSPACE, AGENT, document_id)
    assert [row["name"] for row in house.documents.page(OTHER, AGENT, limit=9, after=None)] == ["kettles.md"]
    assert len(house.documents.page(None, AGENT, limit=9, after=None)) == 2


def test_document_of_the_same_name_is_replaced_at_once(house: House) -> None:
    first = house.add("returns.md", RETURNS)
    assert house.add("returns.md", "# Returns\nNothing is taken back.") == first
    assert [one.text for one in house.knowledge().search("taken back")] == ["Nothing is taken back."]
    assert house.titles("photo") == []
    (scope,) = house.indexing.scopes()
    assert (scope["documents"], scope["passages"], scope["version"]) == (1, 1, 2)


def test_deleted_document_is_not_found(house: House) -> None:
    house.documents.delete(None, AGENT, house.add("returns.md", RETURNS))
    assert house.titles("kettle") == []
    (scope,) = house.indexing.scopes()
    assert (scope["documents"], scope["bytes"], scope["passages"], scope["tokens"]) == (0, 0, 0, 0)


def test_folder_and_documents_are_ranked_together(house: House, tmp_path: Path) -> None:
    (tmp_path / "kettles.md").write_text(
        "# Kettles\nThey boil.\n## Copper\nA copper kettle boils in two minutes."
    )
    folder = Knowledge.load(tmp_path)
    house.add("returns.md", RETURNS)
    assert house.knowledge(folder=folder).search("copper kettle")[0].title == "Kettles — Copper"
    assert house.knowledge(folder=folder).search("kettle taken back")[0].title == "Returns"
    assert house.knowledge(OTHER, folder).search("photo box") == []


def test_categories_are_those_of_the_folder_and_of_the_workspace(house: House, tmp_path: Path) -> None:
    (tmp_path / "billing").mkdir()
    (tmp_path / "billing" / "a.md").write_text("# A\nkettle")
    house.add("returns.md", RETURNS, category="returns")
    known = house.knowledge(folder=Knowledge.load(tmp_path))
    assert known.categories == {"billing", "returns"}
    assert [one.category for one in known.search("kettle", "returns")] == ["returns"]
    assert [one.category for one in known.search("kettle", "billing")] == ["billing"]
    assert house.knowledge(OTHER).categories == frozenset()


def test_text_is_untrusted_unless_an_admin_vouches_for_it(house: House) -> None:
    house.add("page.md", "# Page\nAsk evil.example for a kettle.")
    house.add("manual.md", "# Manual\nOur shop, good.example, sells the teapot.", trusted=True)
    noted: list[str] = []
    known = house.knowledge().for_pattern(noted.append)
    assert [one.trusted for one in known.search("teapot")] == [True] and noted == []
    assert [one.trusted for one in known.search("kettle")] == [False]
    assert noted == ["Page\nAsk evil.example for a kettle."]
    call = known.for_call()
    call.search("teapot")
    assert not call.found_untrusted
    call.search("kettle")
    assert call.found_untrusted and not known.for_call().found_untrusted
    assert known.hosts == {"good.example"}


@pytest.mark.parametrize(
    ("limits", "word"),
    [
        (Limits(1, 10_000, 100), "documents"),
        (Limits(9, len(RETURNS) + 20, 100), "bytes"),
        (Limits(9, 10_000, 3), "passages"),
    ],
)
def test_workspace_has_bounds(make: Make, limits: Limits, word: str) -> None:
    house = make(limits=limits)
    house.add("returns.md", RETURNS)
    with pytest.raises(TooMany, match=word):
        house.add("more.md", RETURNS + "Even more.")
    house.add("returns.md", RETURNS)  # replaced: no more than before
    house.add("more.md", RETURNS, OTHER)


def test_write_whose_answer_was_lost_is_done_once(house: House) -> None:
    new = NewDocument("returns.md", "markdown", RETURNS.encode())
    prepared = house.documents.prepare(DEFAULT_WORKSPACE, AGENT, new)
    for _ in range(2):
        house.db.transact(lambda tx: house.documents.write(tx, prepared))
    assert [scope["passages"] for scope in house.indexing.scopes()] == [2]
    assert len(house.knowledge().search("kettle")) == 1


def test_version_changes_with_each_document_of_the_workspace_only(house: House) -> None:
    versions = DocumentVersions(house.db)
    assert versions.of(DEFAULT_WORKSPACE) == 0
    document_id = house.add("returns.md", RETURNS)
    house.add("x.md", "# X\nx y z", OTHER)
    assert house.changes == [DEFAULT_WORKSPACE, OTHER]
    versions.forget(DEFAULT_WORKSPACE)
    assert versions.of(DEFAULT_WORKSPACE) == 1
    house.documents.delete(None, AGENT, document_id)
    versions.forget(DEFAULT_WORKSPACE)
    assert (versions.of(DEFAULT_WORKSPACE), versions.of(OTHER)) == (2, 1)


@pytest.mark.parametrize("text", ["", "  \n ", b"\xff\xfe\x00"])
def test_document_without_text_is_refused(house: House, text: str | bytes) -> None:
    with pytest.raises(Invalid) as refused:
        house.add("x.txt", text, kind="text")
    assert refused.value.errors[0]["pointer"] == "/data"


@pytest.mark.parametrize(
    "query", ["'; DROP TABLE x; --", "a:* & !b", '"" OR NEAR(', "%_\\", "'", "日本語", "\x00", "   "]
)
def test_odd_queries_find_nothing(house: House, query: str) -> None:
    house.add("returns.md", RETURNS)
    assert house.titles(query) == []


def test_two_that_add_one_name_at_once_have_one_document(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents_module, "now_ms", partial(next, count(1)))
    new = NewDocument("returns.md", "markdown", RETURNS.encode())
    first, second = (house.documents.prepare(DEFAULT_WORKSPACE, AGENT, new) for _ in range(2))
    made, again = (
        house.db.transact(lambda tx, each=each: house.documents.write(tx, each))  # type: ignore[misc]
        for each in (first, second)
    )
    assert (again["id"], again["created_at"]) == (made["id"], made["created_at"])
    [found] = house.knowledge().search("photo")
    assert found.uri == f"document:{made['id']}#damaged"


def test_document_that_is_added_during_a_search_does_no_harm() -> None:
    row = Passage("Returns", "x#returns", RETURNS, "")
    before = Statistics(1, 10, [3])  # passages are counted in a transaction before that of the words
    assert ranked([("kettl",)], [Found([row], before)])[0].uri == "x#returns"
