"""Code words of the pages for developers exist: files and names of the tree, each where its section says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT

CODE = (
    "service",
    "config",
    "launcher",
    "offline_model",
    "agent_server",
    "mcp_servers",
    "client",
    "migrations",
    "scripts",
    "tests",
    "nginx",
    "deploy",
    "agents",
)
BESIDE = ("*.py", "Makefile", ".importlinter", "docker-compose.yml", "requirements*.in", "docs/settings.md")
# Folders that a path on these pages may begin below: `runs/bulkhead.py`, `spec.py`.
FROM = (
    "",
    "service",
    "service/web",
    "service/agents",
    "service/tools/sources",
    "service/observe",
    "config",
    "nginx/slipway",
    "client/slipway_client",
)
WORD = re.compile(r"[A-Za-z_]\w{2,}")
# Of PostgreSQL, SQL, Redis, nginx, Python, Celery and the shell; and what stands for any name.
FOREIGN = {
    "BEGIN",
    "IMMEDIATE",
    "DELETE",
    "CASCADE",
    "FOR",
    "UPDATE",
    "SKIP",
    "LOCKED",
    "ACCESS",
    "EXCLUSIVE",
    "WAITAOF",
    "fail_timeout",
    "yield",
    "from",
    "beat",
}


def files(pattern: str) -> list[Path]:
    """Find what a path of a page names; `<name>` stands for any name."""
    pattern = re.sub(r"<\w+>", "*", pattern).strip("/")
    return [found for start in FROM for found in sorted((ROOT / start).glob(pattern))]


@cache
def words(path: Path) -> frozenset[str]:
    """List the names in a file: of Python without comments and docstrings."""
    if path.is_dir():
        return frozenset().union(*map(words, (each for each in path.iterdir() if each.name != "__pycache__")))
    if path.suffix not in (".py", ".yml", ".yaml", ".conf", ".in", ".md", ".js", ""):
        return frozenset()
    text = path.read_text()
    return frozenset(WORD.findall(text if path.suffix != ".py" else " ".join(_said(ast.parse(text)))))


def _said(tree: ast.AST) -> Iterator[str]:
    """Yield the names of a module, and its texts but for the docstrings."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) not in docstrings:
            yield from (str(value) for _, value in ast.iter_fields(node) if isinstance(value, str))


@cache
def members() -> dict[str, frozenset[str]]:
    """List the attributes of each class of the service: its methods, its fields, and what it assigns to `self`."""
    found: dict[str, frozenset[str]] = {}
    for path in sorted((ROOT / "service").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                own = {getattr(each, "name", None) for each in node.body}
                own |= {getattr(getattr(each, "target", None), "id", None) for each in node.body}
                own |= set(re.findall(r"\bself\.(\w+)", ast.unparse(node)))
                found[node.name] = found.get(node.name, frozenset()) | {name for name in own if name}
    return found


def sections(page: str) -> list[tuple[str, str]]:
    """Return (title, text) of every section of a page, without blocks of code."""
    text = re.sub(r"^ *```.*?^ *```", "", (ROOT / "docs" / page).read_text(), flags=re.S | re.M)
    title, *rest = re.split(r"^## (.*)$", text, flags=re.M)
    return [("", title), *zip(rest[::2], rest[1::2], strict=True)]


def faults(text: str, within: list[Path]) -> list[str]:
    """List the code words of a text that are neither a file nor a name in it, or in the files `within`."""
    spans = re.findall(r"(?<!`)`([^`]+)`", text)
    paths = {
        span: files(span.partition("::")[0]) for span in spans if re.fullmatch(r"[^\s(=]*[/.][^\s(=]*", span)
    }
    named = [path for found in paths.values() for path in found]
    known = frozenset().union(*map(words, named + within), FOREIGN)
    missing = []
    for span in spans:
        if paths.get(span):
            left = span.partition("::")[2]
        elif re.search(rf"^({'|'.join(CODE)}|docs)/|[^/]/$|\.(py|conf|md|js|yml)$", span) and " " not in span:
            missing.append(span)
            continue
        else:
            left = re.sub(r"<\w+>", "", span)
        missing += [f"{word} in `{span}`" for word in WORD.findall(left) if word not in known]
        missing += [
            f"{name}.{member}"
            for name, member in re.findall(r"\b([A-Z]\w+)\.([a-z]\w+)", left)
            if name in members() and member not in members()[name]
        ]
    return missing


CONTRIBUTING = sections("contributing.md")


@pytest.mark.parametrize(
    ("title", "text"), [pytest.param(*each, id=each[0] or "intro") for each in CONTRIBUTING]
)
def test_code_words_of_a_checklist_are_in_the_files_that_it_names(title: str, text: str) -> None:
    assert faults(text, files("Makefile")) == []


def test_code_words_of_architecture_exist() -> None:
    everything = [path for each in (*CODE, *BESIDE) for path in ROOT.glob(each)]
    for title, text in sections("architecture.md"):
        assert faults(text, everything) == [], title


def test_code_words_of_the_decisions_that_hold_exist() -> None:
    everything = [path for each in (*CODE, *BESIDE) for path in ROOT.glob(each)]
    holds = (ROOT / "docs" / "README.md").read_text().partition("### Holds")[2].partition("### Superseded")[0]
    decisions = re.findall(r"\]\((adr/[^)]+)\)", holds)
    assert decisions
    for decision in decisions:
        for title, text in sections(decision):
            assert faults(text, everything) == [], f"{decision}, {title}"


def test_modules_of_the_house_exist() -> None:
    """A line of the house has a folder, then modules two spaces apart; other text is no list."""
    house = (ROOT / "docs" / "architecture.md").read_text().partition("\nservice/\n")[2].partition("```")[0]
    folders: dict[int, str] = {}
    listed = 0
    for line in house.splitlines():
        indent, folder, rest = re.fullmatch(r"( *)(?:(\w+)/ )?(.*)", line).groups()  # type: ignore[union-attr]
        if folder:
            folders = {depth: name for depth, name in folders.items() if depth < len(indent)}
            folders[len(indent)] = folder
        elif len(indent) < 10:  # modules beside the folders
            folders = {}
        for name in re.findall(r"(?:^|(?<=  ))(\w+)(?: \([^)]*\))?(?=  |$)", rest.strip()):
            listed += 1
            at = ROOT.joinpath("service", *folders.values(), name)
            assert at.is_dir() or at.with_suffix(".py").is_file(), line
    assert listed > 50
