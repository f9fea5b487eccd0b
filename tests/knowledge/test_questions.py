"""Two hundred questions: the right passage is among the first three, in each kind of index, with a verbatim quote."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from service.knowledge import Knowledge, Passage
from service.knowledge.formats import FORMATS
from tests.conftest import ROOT
from tests.knowledge.house import DeterministicEmbedder, House
from tests.knowledge.pdfs import pdf
from tests.tables import drop_database, postgres_database

DATA = Path(__file__).parent / "data"
FIRST = 3
Search = Callable[[str], list[Passage]]


class Question(NamedTuple):
    place: str
    text: str


def questions() -> list[Question]:
    lines = [line for path in sorted(DATA.glob("questions*.txt")) for line in path.read_text().splitlines()]
    return [Question(*line.split(" = ", 1)) for line in lines if not line.startswith("#")]


def files() -> Iterator[tuple[str, bytes]]:
    """Yield the documents of the shipped agents, and those beside this file, with their names."""
    for folder in (*(ROOT / "agents").glob("*/knowledge"), DATA):
        for path in sorted(folder.rglob("*")):
            if path.name == "kettle.txt":
                yield "kettle.pdf", pdf(*path.read_text().split("\n%%\n"))
            elif path.suffix in FORMATS and not path.name.startswith("questions"):
                yield path.relative_to(folder).as_posix(), path.read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Knowledge:
    place = tmp_path_factory.mktemp("knowledge")
    for name, content in files():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(content)
    return Knowledge.load(place)


@pytest.fixture(scope="module")
def asked(
    request: pytest.FixtureRequest, folder: Knowledge, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Search]:
    """Search over one kind of index; URIs begin with the names of the files."""
    if request.param == "folder":
        yield lambda query: [
            one._replace(uri=one.uri.removeprefix("knowledge/")) for one in folder.search(query, limit=FIRST)
        ]
        return
    url = f"sqlite:///{tmp_path_factory.mktemp('db')}/x.db"
    if request.param != "sqlite":
        url = postgres_database(request.getfixturevalue("postgres_url"), request.param)
    house = House(url, DeterministicEmbedder() if request.param == "hybrid" else None)
    names = {house.add(name, content, kind=FORMATS[Path(name).suffix]): name for name, content in files()}
    if house.embedder is not None:
        house.index()

    def search(query: str) -> list[Passage]:
        found = house.knowledge().search(query, limit=FIRST)
        return [one._replace(uri=_named(one.uri, names)) for one in found]

    yield search
    assert all(
        one["model"] == (house.embedder.name if house.embedder else None) for one in house.indexing.scopes()
    )
    house.close()
    if request.param != "sqlite":
        drop_database(request.getfixturevalue("postgres_url"), request.param)


def _named(uri: str, names: dict[str, str]) -> str:
    document, _, place = uri.removeprefix("document:").partition("#")
    return f"{names[document]}#{place}"


def test_there_are_a_hundred_questions_and_a_hundred_by_another_hand() -> None:
    assert len(questions()) == 200 == len({question.text for question in questions()})


@pytest.mark.parametrize("asked", ["folder", "sqlite", "words", "hybrid"], indirect=True)
def test_the_right_passage_is_among_the_first_three(asked: Search) -> None:
    texts = dict(files())
    missed = []
    for question in questions():
        found = asked(question.text)
        if question.place not in [one.uri for one in found]:
            missed.append((question, [one.uri for one in found]))
        for one in found:
            assert one.quote and one.quote in one.text
            name = one.uri.partition("#")[0]
            if not name.endswith((".pdf", ".html")):
                assert one.quote in texts[name].decode()
    assert missed == []
