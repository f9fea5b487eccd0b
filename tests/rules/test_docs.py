"""Documentation lists every error code, event, metric, log event and page, and no others."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from scripts import metrics_page
from service.error_table import all_errors
from service.types import LAST_EVENTS, Event
from service.web.openapi import specification
from tests.conftest import ROOT
from tests.described import OTHER_DIALECT
from tests.made import app_in, close

DOCS = ROOT / "docs"
LEVELS = frozenset({"debug", "info", "warning", "error", "exception", "critical"})


def rows(page: str) -> list[list[str]]:
    """The cells of every row of every table."""
    lines = re.findall(r"^\|(.*)\|$", (DOCS / page).read_text(), re.M)
    return [[cell.strip() for cell in line.split("|")] for line in lines]


def first_names(page: str) -> set[str]:
    """Return the names in code marks in the first cells."""
    return {name for cells in rows(page) for name in re.findall(r"`([\w.]+)`", cells[0])}


def test_the_page_of_errors_is_up_to_date() -> None:
    command = [sys.executable, "-m", "scripts.errors_page"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    assert (DOCS / "errors.md").read_text() == printed
    for error in all_errors():
        assert f'<a id="{error.code}"></a>' in printed  # what `type` points to


def test_every_code_is_one_error() -> None:
    codes = [error.code for error in all_errors()]
    assert len(set(codes)) == len(codes)
    for error in all_errors():
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", error.code) and 400 <= error.status < 600
        assert error.title and not error.title.endswith(".")


def raised() -> set[str]:
    """Names of errors that the code makes: called, raised as they are, or what a table names for a status."""
    found: set[str] = set()
    for path in sorted((ROOT / "service").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            made: list[ast.expr | None] = []
            if isinstance(node, ast.Call):
                made = [node.func]
            elif isinstance(node, ast.Raise):
                made = [node.exc]
            elif isinstance(node, ast.Dict):
                made = list(node.values)
            found |= {ast.unparse(name).rpartition(".")[2] for name in made if name is not None}
    return found


def sent_by_nginx() -> set[str]:
    """Codes of the errors that nginx answers with by itself."""
    text = (ROOT / "nginx" / "slipway" / "http.conf").read_text()
    table = re.search(r"map \$status \$slipway_code \{(.*?)\}", text, re.S)
    assert table is not None
    return set(re.findall(r"(\w+);", table[1]))


def test_every_documented_code_is_raised() -> None:
    made = raised()
    unused = {error.code for error in all_errors() if error.__name__ not in made} - sent_by_nginx()
    assert unused == set()


def test_every_code_of_nginx_is_documented() -> None:
    assert sent_by_nginx() <= {error.code for error in all_errors()}


def test_every_event_is_documented(tmp_path: Any) -> None:
    events = {str(event) for event in Event}
    assert first_names("events.md") == events
    last = {
        name
        for cells in rows("events.md")
        for name in re.findall(r"`([\w.]+)`", cells[0])
        if "last:" in cells[-1]
    }
    assert last == {str(event) for event in LAST_EVENTS}
    made = app_in(tmp_path)
    streams = [
        operation["responses"]["200"]["content"]["text/event-stream"]["schema"]["description"]
        for path, methods in specification(made)["paths"].items()
        for operation in methods.values()
        if not path.startswith(OTHER_DIALECT)  # its events are its own
        and "text/event-stream" in operation["responses"].get("200", {}).get("content", {})
    ]
    close(made)
    assert len(streams) >= 2
    for told in streams:
        assert set(re.findall(r"`([\w.]+)`", told)) == events


def test_page_of_metrics_is_up_to_date() -> None:
    assert (DOCS / "metrics.md").read_text() == metrics_page.page()


def logged() -> Iterator[str]:
    """Every name that a line of our log may have, as the code says it."""
    for path in sorted((ROOT / "service").rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call):
                continue
            function = call.func
            if not (
                isinstance(function, ast.Attribute)
                and function.attr in LEVELS
                and ast.unparse(function.value).endswith("log")
            ):
                continue
            found = [part.value for part in ast.walk(call.args[0]) if isinstance(part, ast.Constant)]
            assert found, f"{path}:{call.lineno} says its name in a way nobody can look up"
            yield from map(str, found)


def test_every_log_event_is_documented() -> None:
    told = set(first_names("logs.md"))
    assert set(logged()) <= told
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", name) for name in logged())


def test_every_page_is_found_from_the_first() -> None:
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} - {"README.md"}
    links = set(re.findall(r"\]\(([^)#]+)", (DOCS / "README.md").read_text()))
    assert pages == links


def test_every_change_is_told_once() -> None:
    entries = re.findall(r"(?ms)^- .*?(?=^- |^#|\Z)", (ROOT / "CHANGELOG.md").read_text())
    assert sorted(entries, key=str.strip) == sorted(
        {each.strip(): each for each in entries}.values(), key=str.strip
    )


def test_every_decision_has_the_same_headings() -> None:
    for page in sorted((DOCS / "adr").glob("*.md")):
        titles = re.findall(r"^## (.*)$", page.read_text(), re.M)
        assert [title for title in titles if title not in ("Options", "Measurements")] == [
            "Drivers",
            "Decision",
            "Costs",
        ], page.name


def test_every_link_leads_somewhere() -> None:
    for page in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        for target, _, anchor in re.findall(r"\]\(([^)#\s]*)(#([^)]*))?\)", page.read_text()):
            if "://" in target:
                continue
            file = (page.parent / target) if target else page
            assert file.exists(), f"{page.name} → {target}"
            if anchor and file.suffix == ".md":
                titles = re.findall(r"^#+ (.*)$", file.read_text(), re.M)
                anchors = {
                    re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles
                }
                assert anchor in anchors, f"{page.name} → {target}#{anchor}"


def test_every_row_of_parts_down_names_its_tests() -> None:
    table = [cells for cells in rows("when-a-part-is-down.md") if len(cells) == 4][2:]
    assert len(table) > 8
    for down, *_, held_by in table:
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", held_by)
        assert named and len(named) == held_by.count("`tests/"), f"{down}: each test by file and name"
        for file, name in named:
            assert f"\ndef {name}(" in (ROOT / file).read_text(), f"{down}: there is no {name} in {file}"
