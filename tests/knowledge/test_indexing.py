"""Indexing: by meaning on PostgreSQL, only what changed, without a gap, and on after an end in the middle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from service.knowledge import Knowledge, indexing
from service.knowledge import documents as documents_module
from service.knowledge.vectors import NoVectors
from service.store import knowledge_vectors as vectors
from service.store.schema.knowledge import VECTORS
from service.types import DEFAULT_WORKSPACE
from tests.knowledge.conftest import Make
from tests.knowledge.house import DeterministicEmbedder, House

ON_POSTGRES = pytest.mark.parametrize("url", ["postgresql"], indirect=True)
RETURNS = "# Returns\nYour payment is reimbursed in five days."
OTHERS = {
    f"{word}.md": f"# {word.title()}\nAll about {word} and nothing else." for word in ("tea", "cups", "pots")
}
QUESTION = "money back"  # no word of it is in the document: the embedder knows that they mean the same


@pytest.fixture
def meaning(make: Make) -> House:
    return make(embedder=DeterministicEmbedder())


@ON_POSTGRES
def test_meaning_finds_what_words_do_not(meaning: House, make: Make) -> None:
    meaning.add("returns.md", RETURNS)
    for name, text in OTHERS.items():
        meaning.add(name, text)
    assert meaning.titles(QUESTION)[0] == "Returns"
    assert make().titles(QUESTION) == []
    first = meaning.knowledge().search(QUESTION)[0]
    assert first.quote in RETURNS and not first.trusted


@ON_POSTGRES
def test_without_a_vector_of_the_query_words_are_enough(meaning: House) -> None:
    meaning.add("returns.md", RETURNS)
    assert meaning.embedder is not None
    meaning.embedder.refuses = "endpoint_away"
    assert meaning.titles(QUESTION) == []
    assert meaning.titles("When is a payment reimbursed?") == ["Returns"]


@ON_POSTGRES
def test_no_workspace_is_near_another(meaning: House) -> None:
    meaning.add("returns.md", RETURNS, "wsp_other")
    meaning.add("tea.md", OTHERS["tea.md"])
    assert meaning.titles(QUESTION) == ["Tea"]
    assert meaning.titles(QUESTION, "wsp_other") == ["Returns"]
    assert meaning.titles(QUESTION, "wsp_third") == []


@ON_POSTGRES
def test_folder_is_searched_by_meaning_once_it_is_indexed(meaning: House, tmp_path: Path) -> None:
    for name, text in {"returns.md": RETURNS, **OTHERS}.items():
        (tmp_path / name).write_text(text)
    folder = Knowledge.load(tmp_path)
    assert [one.title for one in meaning.knowledge(folder=folder).search(QUESTION)] == []
    assert (meaning.index(folder), meaning.index(folder)) == (4, 0)
    first = meaning.knowledge(folder=folder).search(QUESTION)[0]
    assert (first.title, first.trusted) == ("Returns", True)
    (tmp_path / "returns.md").write_text(RETURNS + " It goes to your card.")
    (tmp_path / "tea.md").unlink()
    assert meaning.index(Knowledge.load(tmp_path)) == 1, "of the changed document alone"
    count = sa.text("SELECT count(*) AS n FROM knowledge_vectors")
    assert meaning.db.query(lambda tx: tx.rows(count))[0]["n"] == 3


@ON_POSTGRES
def test_another_model_takes_over_when_all_have_its_vectors(make: Make) -> None:
    before = make(embedder=DeterministicEmbedder("old", 64))
    for name, text in {"returns.md": RETURNS, **OTHERS}.items():
        before.add(name, text)
    after = make(embedder=DeterministicEmbedder("new", 128))
    assert after.embedder is not None and before.embedder is not None
    (scope,) = after.indexing.scopes()
    texts = list(after.indexing.texts(scope))
    after.indexing._embed_some(scope, texts[:2])  # killed here
    assert before.titles(QUESTION)[0] == "Returns", "as before, as a whole"
    assert after.titles(QUESTION) == [], "by words alone, as there is no whole yet"
    after.embedder.asked.clear()
    assert after.index() == 2
    assert len(after.embedder.asked) == 2 and after.titles(QUESTION)[0] == "Returns"
    assert before.titles(QUESTION) == []
    models = sa.text("SELECT DISTINCT model FROM knowledge_vectors")
    assert [row["model"] for row in after.db.query(lambda tx: tx.rows(models))] == ["new"]


@ON_POSTGRES
def test_documents_tell_what_they_are_searched_by(meaning: House, make: Make) -> None:
    assert meaning.embedder is not None

    def told(house: House = meaning) -> list[tuple[str, str | None]]:
        page = house.documents.page(DEFAULT_WORKSPACE, "support", limit=9, after=None)
        return [(row["searched_by"], row["reason"]) for row in page]

    meaning.add("returns.md", RETURNS)
    assert told() == [("meaning", None)] and told(make()) == [("words", "no_endpoint")]
    meaning.embedder.refuses = "cap_reached"
    meaning.add("tea.md", OTHERS["tea.md"])
    assert told() == [("words", "cap_reached")] * 2, "as no query is embedded"
    meaning.embedder.refuses = None
    assert told() == [("meaning", None), ("words", "not_indexed")]
    assert meaning.index() == 1 and told() == [("meaning", None)] * 2


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_without_vectors_nothing_is_embedded(meaning: House) -> None:
    assert meaning.embedder is not None
    meaning.add("returns.md", RETURNS)
    (row,) = meaning.documents.page(DEFAULT_WORKSPACE, "support", limit=9, after=None)
    assert (row["searched_by"], row["reason"]) == ("words", "no_extension")
    assert not meaning.embedder.asked, "as nobody would search them"


@ON_POSTGRES
def test_endpoint_that_fails_changes_nothing(meaning: House, make: Make) -> None:
    meaning.add("returns.md", RETURNS)
    other = make(embedder=DeterministicEmbedder("other"))
    assert other.embedder is not None
    other.embedder.refuses = "endpoint_away"
    with pytest.raises(NoVectors):
        other.index()
    assert meaning.titles(QUESTION) == ["Returns"]


def test_new_rules_take_effect_for_all_documents_at_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {"returns.md": RETURNS, **OTHERS}.items():
        house.add(name, text)
    monkeypatch.setattr(indexing, "RULES", 99)
    monkeypatch.setattr(documents_module, "RULES", 99)
    (scope,) = house.indexing.scopes()
    seen: list[int] = []

    def look(done: int) -> None:
        seen.append(len(house.knowledge().search("nothing else", limit=9)))
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        house.indexing.cut_again(scope, look)
    assert seen == [3, 3], "as before, while others are made beside"
    assert house.indexing.cut_again(scope, lambda done: None) == 2, "only those that were left"
    assert len(house.knowledge().search("nothing else", limit=9)) == 3
    rows = house.documents.page(DEFAULT_WORKSPACE, "support", limit=9, after=None)
    assert {row["rules"] for row in rows} == {99}
    count = sa.text("SELECT count(*) AS n FROM knowledge_passages")
    assert house.db.query(lambda tx: tx.rows(count))[0]["n"] == 4, "nothing of the builds of before"
    assert house.indexing.scopes()[0]["version"] == 5
    assert house.indexing.cut_again(scope, lambda done: None) == 0


@pytest.fixture
def poor(postgres_url: str, url: str) -> Iterator[str]:
    """A database whose owner of tables may not make extensions."""
    address = url.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("DROP TABLE knowledge_vectors")
        connection.execute("DROP EXTENSION vector CASCADE")
        connection.execute("DROP ROLE IF EXISTS poor")
        connection.execute("CREATE ROLE poor LOGIN")
        connection.execute("GRANT CREATE, USAGE ON SCHEMA public TO poor")
        connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO poor")
        connection.execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO poor")
    yield address.replace("postgres:", "poor:", 1)
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("DROP OWNED BY poor")
        connection.execute("DROP ROLE poor")


@ON_POSTGRES
def test_without_the_extension_words_are_enough(poor: str) -> None:
    with psycopg.connect(poor, autocommit=True) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("poor",)
        connection.execute(VECTORS)
    house = House(poor, DeterministicEmbedder())
    house.indexing.make_vectors()
    assert not house.db.query(vectors.available) and not house.indexing.by_meaning
    house.add("returns.md", RETURNS)
    assert house.titles("When is it reimbursed?") == ["Returns"] and house.titles(QUESTION) == []
    house.close()


@ON_POSTGRES
def test_table_is_made_once_the_extension_is_there(meaning: House) -> None:
    meaning.db.transact(lambda tx: tx.execute(sa.text("DROP TABLE knowledge_vectors")))
    assert not meaning.indexing.by_meaning
    meaning.indexing.make_vectors()
    meaning.indexing.make_vectors()
    assert meaning.indexing.by_meaning


@ON_POSTGRES
def test_many_vectors_get_an_index(meaning: House, monkeypatch: pytest.MonkeyPatch) -> None:
    meaning.add("returns.md", RETURNS)
    assert meaning.indexing.index_vectors() == []
    monkeypatch.setattr(vectors, "MIN_INDEXED", 1)
    assert (
        meaning.indexing.index_vectors()
        == ["ix_knowledge_vectors_hnsw_512"]
        == meaning.indexing.index_vectors()
    )
    assert meaning.titles(QUESTION) == ["Returns"]
