from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.llm.later import imports_wait

FILES = {
    "__init__.py": "from . import other\nfrom .big import Big, small as little\nfrom .stars import *\nEVER = 1\n",
    "big.py": "from tall.stars import STAR\nclass Big: ...\nsmall = 'small'\n",
    "stars.py": "STAR = 'star'\n",
    "other.py": "",
    "inner/__init__.py": "from .deep import DEEP\n",
    "inner/deep.py": "DEEP = 'deep'\n",
}


@pytest.fixture
def tall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package of that name can be imported."""
    for name, text in FILES.items():
        path = tmp_path / "tall" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "tall"]:
        del sys.modules[name]


def loaded() -> set[str]:
    return {name.removeprefix("tall.") for name in sys.modules if name.startswith("tall.")}


@pytest.mark.usefixtures("tall")
def test_what_can_wait_is_imported_when_its_name_is_asked_for() -> None:
    with imports_wait("tall", lambda package, module: True):
        tall = importlib.import_module("tall")
    assert (loaded(), tall.EVER, tall.STAR) == ({"other", "stars"}, 1, "star")
    assert tall.little == "small"
    assert loaded() == {"other", "big", "stars"}
    assert vars(tall)["little"] == "small"


@pytest.mark.usefixtures("tall")
def test_nothing_is_found_that_is_not_there() -> None:
    with imports_wait("tall", lambda package, module: True):
        tall = importlib.import_module("tall")
    with pytest.raises(AttributeError, match="module 'tall' has no attribute 'nothing'"):
        _ = tall.nothing
    with pytest.raises(ImportError):
        exec("from tall import nothing")
    assert loaded() == {"other", "stars"}


@pytest.mark.usefixtures("tall")
def test_what_cannot_wait_is_imported_at_once() -> None:
    with imports_wait("tall", lambda package, module: package != "tall.inner"):
        inner = importlib.import_module("tall.inner")
    assert loaded() == {"other", "stars", "inner", "inner.deep"}
    assert "DEEP" in vars(inner)


@pytest.mark.usefixtures("tall")
def test_outside_of_it_packages_are_imported_as_ever() -> None:
    before = list(sys.meta_path)
    with imports_wait("tall", lambda package, module: True):
        importlib.import_module("tall")
        assert sys.meta_path != before
    assert sys.meta_path == before
    importlib.import_module("tall.inner")
    assert loaded() == {"other", "stars", "inner", "inner.deep"}


@pytest.mark.usefixtures("tall")
def test_a_fault_in_a_package_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "tall" / "__init__.py").write_text("from .big import Big\n\n1 / 0\n")
    with imports_wait("tall", lambda package, module: True), pytest.raises(ZeroDivisionError) as found:
        importlib.import_module("tall")
    assert found.traceback[-1].lineno == 2
    assert "tall" not in sys.modules
