"""Files of the web page: headers, addresses, and rules for every file. Needs no browser."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import httpx2
import pytest

from service.error_table import all_errors
from service.web.routes import page

WEB = Path(page.__file__).parents[1]
VENDOR = WEB / "assets" / "vendor"
SCRIPTS = sorted((WEB / "assets").glob("*.js"))
STYLES = sorted((WEB / "assets").glob("*.css"))
PAGES = sorted((WEB / "templates").glob("*.html"))
# Ways to make markup or code out of text; the content security policy forbids them a second time.
FROM_TEXT = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|DOMParser|srcdoc"
)


@pytest.mark.parametrize("path", ["/", "/docs", "/docs/errors"])
def test_page_loads_own_resources_only(client: httpx2.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = [part.strip() for part in answer.headers["Content-Security-Policy"].split(";")]
    assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert not re.search(r"<style|<script(?![^>]* src=)| style=| on[a-z]+=", answer.text)


def test_every_file_a_page_names_is_there_and_kept_for_good(client: httpx2.Client) -> None:
    names = re.findall(r'(?:src|href)="(/assets/[^"]+)"', client.get("/").text)
    assert len(set(names)) == 3
    for name in names:
        answer = client.get(name)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["Cache-Control"]


@pytest.mark.parametrize("prefix", ["", "0123456789ab/"])
def test_a_file_of_another_release_is_asked_for_again(client: httpx2.Client, prefix: str) -> None:
    answer = client.get(f"/assets/{prefix}app.js")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/javascript")
    assert answer.headers["Cache-Control"] == "no-cache"
    again = client.get(f"/assets/{prefix}app.js", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_vendored_file_is_kept_for_good_too(client: httpx2.Client) -> None:
    answer = client.get(f"/assets/{page.VERSION}/vendor/markdown-it.min.js")
    assert (answer.status_code, "immutable" in answer.headers["Cache-Control"]) == (200, True)
    assert client.get("/assets/vendor/markdown-it.min.js").headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize(
    "name",
    [
        "none.js",
        "../ui.py",
        "..%2fui.py",
        "%2e%2e/%2e%2e/app.py",
        "app.js/",
        "",
        "a/b/none.css",
        "vendor/README.md",
    ],
)
def test_no_other_file(client: httpx2.Client, name: str) -> None:
    answer = client.get(f"/assets/{name}")
    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"


def test_every_error_code_is_on_the_errors_page(client: httpx2.Client) -> None:
    page = client.get("/docs/errors").text
    assert [error.code for error in all_errors() if f'id="{error.code}"' not in page] == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_short_and_never_makes_markup_of_text(script: Path) -> None:
    text = script.read_text("utf-8")
    assert text.count("\n") < 200
    assert FROM_TEXT.findall(text) == []


@pytest.mark.parametrize("file", [*SCRIPTS, *PAGES, *STYLES], ids=lambda path: path.name)
def test_no_file_names_an_address_outside(file: Path) -> None:
    assert re.findall(r"(?:https?:)?//[a-z0-9-]+\.[a-z]+|@import|\burl\(", file.read_text("utf-8")) == []


def test_every_vendored_file_is_the_one_that_was_published() -> None:
    """A line of the list for each: file, package and version, licence, SHA-256."""
    readme = (VENDOR / "README.md").read_text("utf-8")
    listed = re.findall(
        r"^\| `(\S+)` \| \S+ \d+\.\d+\.\d+ \| \[\S+\]\((\S+)\) \| `([0-9a-f]{64})` \|$", readme, re.MULTILINE
    )
    digests = {name: hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() for name, _, _ in listed}
    assert digests == {name: digest for name, _, digest in listed}
    others = {"README.md", *(licence for _, licence, _ in listed)}
    assert {path.name for path in VENDOR.iterdir()} == {*digests, *others}


def test_the_page_stays_light() -> None:
    """List the files a browser loads to show the page, uncompressed."""
    loaded = [name for name in page.ASSETS if not name.startswith("doc")]
    assert sum(len(page.ASSETS[name]) for name in loaded) < 250_000
