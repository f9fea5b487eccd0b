"""Files of an agent's folder: its version, and the detection of edits."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from service.agents import files
from service.agents.files import folders_of, links_out, stamp_of, version_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "agents" / "probe"
    for name, text in {"agent.yaml": "a", "prompt.md": "b", "knowledge/x/y.md": "c"}.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(text)
    return made


def test_a_copy_made_in_another_order_has_the_same_version(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file():
            target = copy / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    assert version_of(copy) == version_of(folder)


@pytest.mark.parametrize(
    "name",
    [
        ".hidden",
        ".git/config",
        "knowledge/.DS_Store",
        "prompt.md~",
        "#prompt.md#",
        ".prompt.md.swp",
        "prompt.md.bak",
        "tools.py.orig",
        "prompt.md___jb_tmp___",
        "__pycache__/tools.cpython-311.pyc",
        "tools.pyc",
    ],
)
def test_editor_and_bytecode_files_do_not_change_the_version(folder: Path, name: str) -> None:
    version, stamp = version_of(folder), stamp_of(folder).files
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("junk")
    assert (version_of(folder), stamp_of(folder).files) == (version, stamp)


@pytest.mark.parametrize("name", ["notes.txt", "data/prices.json", "knowledge/x/new.md", "evals.yaml"])
def test_every_other_file_counts(folder: Path, name: str) -> None:
    """A tool may read any of them."""
    version, stamp = version_of(folder), stamp_of(folder).files
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("new")
    assert version_of(folder) != version and stamp_of(folder).files != stamp


def test_names_count_as_well_as_contents(folder: Path) -> None:
    version = version_of(folder)
    (folder / "prompt.md").rename(folder / "prompt2.md")
    assert version_of(folder) != version


def test_an_edit_shows_that_keeps_size_and_time(folder: Path) -> None:
    path, before = folder / "prompt.md", stamp_of(folder).files
    about = path.stat()
    path.write_text("B")
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert stamp_of(folder).files != before


def test_recently_written_folder_is_not_settled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert files.SETTLED_SECONDS > 0.02  # two writes within a tick of the file system's clock
    monkeypatch.setattr(files, "SETTLED_SECONDS", 3600.0)
    assert not stamp_of(folder).settled
    monkeypatch.setattr(files, "SETTLED_SECONDS", -1.0)
    assert stamp_of(folder).settled


def test_unreadable_entries_are_part_of_the_version(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "nowhere").symlink_to("gone")
    (folder / "loop").symlink_to("loop")
    os.makedirs(os.fsencode(folder) + b"/\xff")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff/\xfe.txt")).write_text("x")
    assert len(version_of(folder)) == 12 and len(stamp_of(folder).files) == 4


def test_links_that_lead_out_are_named_and_others_are_not(folder: Path) -> None:
    (folder / "inside.md").symlink_to("prompt.md")
    (folder / "out.md").symlink_to("../../elsewhere.md")
    (folder / "knowledge" / "shared").symlink_to("/usr")
    assert [path.name for path in links_out(folder)] == ["out.md", "shared"]


def test_hidden_folders_and_those_with_an_underscore_are_no_agents(folder: Path) -> None:
    for name in (".git", "_shared"):
        (folder.parent / name).mkdir()
    (folder.parent / "README.md").write_text("x")
    assert folders_of(folder.parent) == [folder]
    assert folders_of(folder.parent / "nowhere") == []
