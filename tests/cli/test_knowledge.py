"""`flask knowledge`: documents of a workspace, added, searched, indexed and removed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from flask import Flask

from tests.made import app_in, close

TEXT = "# Zeppelins\n\nA zeppelin of ours is insured for exactly 4,711 flights."
WORDS_ALONE = "Searches are by words alone: KNOWLEDGE_EMBEDDINGS_URL is not set."


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    made = app_in(tmp_path_factory.mktemp("knowledge"))
    yield made
    close(made)


def run(app: Flask, *words: str) -> Result:
    return app.test_cli_runner().invoke(args=["knowledge", *words])


def test_document_from_its_file_to_its_end(app: Flask, tmp_path: Path) -> None:
    file = tmp_path / "zeppelins.md"
    file.write_text(TEXT)
    added = run(app, "add", "support", str(file), "--category", "general", "--title", "Airships")
    assert added.exit_code == 0 and "1 passages" in added.output, added.output
    listed = run(app, "list", "support").output
    assert "zeppelins.md" in listed and "no_endpoint" in listed and WORDS_ALONE in listed
    found = run(app, "search", "support", "How many flights of a zeppelin?", "--limit", "1").output
    assert "4,711" in found and "Zeppelins" in found
    indexed = run(app, "index", "--agent", "support")
    assert indexed.exit_code == 0 and "KNOWLEDGE_EMBEDDINGS_URL is not set" in indexed.output
    assert run(app, "remove", "support", "zeppelins.md").output == "Removed zeppelins.md.\n"
    told = run(app, "list", "support").output
    assert told == f"There are no documents.\n{WORDS_ALONE}\n"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("add", "support", "{}/a.csv"), "does not end in .md, .txt, .html or .pdf"),
        (("add", "support", "{}/b.pdf", "--category", "general"), "is broken"),
        (("add", "support", "{}/c.md", "--category", "biling"), "did you mean 'billing'"),
        (("add", "assistant", "{}/c.md"), "reads no documents"),
        (("add", "suport", "{}/c.md"), "did you mean 'support'"),
        (("remove", "support", "none.md"), "There is no document none.md"),
        (("list", "support", "--workspace", "none"), "There is no workspace none"),
        (("index", "--agent", "none"), "There is no agent named none"),
    ],
)
def test_faults_are_one_line(app: Flask, tmp_path: Path, words: tuple[str, ...], why: str) -> None:
    for name in ("a.csv", "b.pdf", "c.md"):
        (tmp_path / name).write_text("x")
    failed = run(app, *(word.format(tmp_path) for word in words))
    assert failed.exit_code == 1 and why in failed.output and failed.output.count("\n") == 1, failed.output
