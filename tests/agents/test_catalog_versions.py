"""Versions of an agent in a running process: found by runs, consistent, reloaded."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from service.agents import catalog
from service.agents.catalog import AgentCatalog
from service.agents.files import Stamp, version_of
from service.tools.sources import fresh_module
from tests.agents.house import GOOD, TOOLS, load, write
from tests.agents.live import live, said, told

__all__ = ["live", "told"]


def test_run_keeps_the_version_of_its_start(live: AgentCatalog, tmp_path: Path) -> None:
    first = live.agents["probe"]
    for number in range(catalog.KEPT_VERSIONS):
        write(tmp_path, prompt_md=f"Be {number}.")
        live.refresh()
    assert live.find("probe", first.version) is first
    write(tmp_path, prompt_md="Be last.")
    live.refresh()
    assert live.find("probe", first.version) is live.agents["probe"]  # it is long gone
    assert live.find("nobody", "1") is None


def test_modules_of_old_versions_are_forgotten(live: AgentCatalog, tmp_path: Path) -> None:
    for number in range(10):
        write(tmp_path, tools_py=f"{TOOLS}\nNUMBER = {number}\n")
        live.refresh()
    names = [name for name in sys.modules if name.startswith("agent_tools.probe.")]
    assert len(names) == fresh_module.KEPT_MODULES


def test_prompt_and_version_always_belong_together(tmp_path: Path, restless: None) -> None:
    """However often it is saved while others read, as editors save: another file takes its name."""
    write(tmp_path, agent_yaml=GOOD, prompt_md="Be 0.")
    live, seen, over = load(tmp_path, reloads=True), set[tuple[str, str]](), threading.Event()

    def read() -> None:
        while not over.is_set():
            live.refresh()
            agent = live.agents["probe"]
            seen.add((agent.version, agent.prompt))

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for number in range(60):
        (tmp_path / "edited").write_text(f"Be {number}.")
        (tmp_path / "edited").replace(tmp_path / "probe" / "prompt.md")
    over.set()
    for reader in readers:
        reader.join()
    assert len({version for version, _ in seen}) == len({prompt for _, prompt in seen}) == len(seen)
    live.refresh()
    assert live.agents["probe"].prompt == "Be 59."


def test_folder_changed_while_loading_is_loaded_again(tmp_path: Path) -> None:
    """Else it would be served under the version of what it replaced."""
    edits = "from pathlib import Path\nPath(__file__).with_name('evals.yaml').write_text('- {input: b, expect: {}}')\n"
    old = "- {input: a, expect: {}}"
    agent = load(write(tmp_path, agent_yaml=GOOD, prompt_md="x", tools_py=edits, evals_yaml=old)).agents[
        "probe"
    ]
    assert [case.input for case in agent.evals] == ["b"]
    assert agent.version == version_of(tmp_path / "probe")


def test_two_edits_within_one_file_system_tick_are_both_loaded(
    live: AgentCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "stamp_of", lambda folder: Stamp((), settled=False))
    for text in ("Be better.", "Be best of all."):
        write(tmp_path, prompt_md=text)
        live.refresh()
        assert live.agents["probe"].prompt == text


def test_a_folder_that_takes_long_to_read_holds_up_no_other_request(
    live: AgentCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "PATIENCE", 0.05)
    os.mkfifo(tmp_path / "pipe")
    good = live.agents["probe"]
    write(tmp_path, tools_py=f"with open({str(tmp_path / 'pipe')!r}) as pipe:\n    pipe.read()\n{TOOLS}")
    reading = threading.Thread(target=live.refresh)
    reading.start()
    with (tmp_path / "pipe").open("w"):  # opened once the other side reads
        live.refresh()
        assert live.agents["probe"] is good
    reading.join(60)
    assert live.agents["probe"] is not good


def test_unreadable_folder_keeps_the_loaded_agents(
    live: AgentCatalog, told: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(folder: Path) -> str:
        raise OSError("The disk is gone")

    monkeypatch.setattr(catalog, "stamp_of", broken)
    live.refresh()
    assert said(told) == ["agents_reload_failed"] and list(live.agents) == ["probe"]
