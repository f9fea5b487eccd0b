"""Agents edited under a running process: reload, last good version, and log lines."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from service.agents.catalog import AgentCatalog
from service.tools import ToolContext
from tests.agents.house import GOOD, REACT, TOOLS, load, write
from tests.agents.live import live, said, told

__all__ = ["live", "told"]
CONTEXT = ToolContext("run_1", "usr_1", "probe", "call_1", 0.0)


def test_an_edited_prompt_counts(live: AgentCatalog, tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    before = live.agents["probe"]
    write(tmp_path, prompt_md="Be better.")
    assert live.agents["probe"] is before  # until somebody asks
    live.refresh()
    after = live.agents["probe"]
    assert after.prompt == "Be better." and after.version != before.version
    assert said(told) == ["agent_loaded"]
    live.refresh()
    assert live.agents["probe"] is after and said(told) == []


def test_an_edited_agent_yaml_counts(live: AgentCatalog, tmp_path: Path) -> None:
    write(
        tmp_path, agent_yaml=REACT + "tools: [look]\nmodels: {simple: claude-opus-5-5}\nlimits: {steps: 3}\n"
    )
    live.refresh()
    agent = live.agents["probe"]
    assert agent.limits.steps == 3
    assert agent.model_router.route("simple").models[0] == "claude-opus-5-5"


def test_an_edited_tool_counts_and_the_old_one_still_works(live: AgentCatalog, tmp_path: Path) -> None:
    before = live.agents["probe"]
    write(
        tmp_path,
        tools_py=TOOLS.replace("return at", "return helper(at)") + "\ndef helper(at): return at * 2\n",
    )
    live.refresh()
    after = live.agents["probe"]
    assert after.tools["look"].run({"at": "a"}, CONTEXT) == "aa"
    assert before.tools["look"].run({"at": "a"}, CONTEXT) == "a"


def test_an_edited_document_counts(live: AgentCatalog, tmp_path: Path) -> None:
    write(tmp_path, knowledge__a_md="# Harbour\nThe harbour opens at nine.")
    live.refresh()
    first = live.agents["probe"].knowledge
    assert first is not None and "nine" in first.search("harbour")[0].text
    write(tmp_path, knowledge__a_md="# Harbour\nThe harbour opens at ten.")
    live.refresh()
    second = live.agents["probe"].knowledge
    assert second is not None and "ten" in second.search("harbour")[0].text
    assert "nine" in first.search("harbour")[0].text


def test_folders_come_and_go(live: AgentCatalog, tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "second", agent_yaml=GOOD, prompt_md="Be second.")
    live.refresh()
    assert list(live.agents) == ["probe", "second"] and said(told) == ["agent_loaded"]
    shutil.rmtree(tmp_path / "probe")
    live.refresh()
    assert list(live.agents) == ["second"] and said(told) == ["agent_removed"]


def test_a_broken_edit_keeps_the_last_good_version_and_says_so_once(
    live: AgentCatalog, tmp_path: Path, told: pytest.LogCaptureFixture
) -> None:
    good = live.agents["probe"]
    write(tmp_path, agent_yaml="description: x\npattern: raect\n")
    for _ in range(3):
        live.refresh()
        assert live.agents["probe"] is good
    assert said(told) == [
        f"agent_fault {tmp_path}/probe/agent.yaml:2: pattern: there is no pattern 'raect'; did you mean 'react'?"
    ]
    assert [fault.line for fault in live.faults] == [2]
    write(tmp_path, agent_yaml=REACT)
    live.refresh()
    assert live.agents["probe"].version != good.version and live.faults == ()
    assert said(told)[0].startswith("agent_warning ") and live.warnings
    write(tmp_path, agent_yaml=REACT + "tools: [look]\n")
    live.refresh()
    assert live.agents["probe"].version == good.version
    assert said(told) == ["agent_loaded"]


def test_a_mended_folder_says_so(live: AgentCatalog, tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    write(tmp_path, tools_py=TOOLS + "x = (\n")
    live.refresh()
    assert said(told) == [f"agent_fault {tmp_path}/probe/tools.py:12: SyntaxError: '(' was never closed"]
    write(tmp_path, tools_py=TOOLS)
    live.refresh()
    assert said(told) == ["agent_fixed"]


def test_broken_new_folder_is_served_after_it_is_fixed(
    live: AgentCatalog, tmp_path: Path, told: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, "second", agent_yaml=GOOD)
    live.refresh()
    assert list(live.agents) == ["probe"]
    assert said(told) == [
        f"agent_fault {tmp_path}/second/prompt.md: is missing: write the agent's instructions there"
    ]
    write(tmp_path, "second", prompt_md="Be second.")
    live.refresh()
    assert list(live.agents) == ["probe", "second"] and said(told) == ["agent_fixed"]


def test_edit_is_logged_by_one_process(tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    keys: set[str] = set()

    def first(text: str, seconds: int) -> bool:
        new = text not in keys
        keys.add(text)
        return new

    write(tmp_path, agent_yaml=GOOD, prompt_md="Be good.")
    pair = [load(tmp_path, reloads=True, first=first) for _ in range(2)]
    write(tmp_path, prompt_md="")
    for one in pair:
        one.refresh()
        one.log_faults()
    assert (
        sum(line.startswith("agent_fault") for line in said(told)) == 2
    )  # the edit, and the fault at the start


def test_version_that_another_process_loaded_is_served_by_all(tmp_path: Path) -> None:
    """However soon an edit, or a new folder, is broken by the next one."""
    write(tmp_path, agent_yaml=GOOD, prompt_md="Be first.")
    quick, slow = (load(tmp_path, reloads=True) for _ in range(2))
    write(tmp_path, prompt_md="Be second.")
    write(tmp_path, "new", agent_yaml=REACT + "tools: [look]\n", prompt_md="Be new.", tools_py=TOOLS)
    quick.refresh()
    write(tmp_path, prompt_md="")
    write(tmp_path, "new", tools_py="x = (")
    for one in (quick, slow, load(tmp_path)):
        one.refresh()
    assert slow.agents["probe"].prompt == "Be second." and list(slow.agents) == ["new", "probe"]
    assert {name: agent.version for name, agent in slow.agents.items()} == {
        name: agent.version for name, agent in quick.agents.items()
    }
    assert slow.agents["new"].tools["look"].run({"at": "a"}, CONTEXT) == "a"
    assert len(slow.faults) == 2
    assert dict(load(tmp_path, reloads=True).agents) == {}  # what is broken at the start is left out


def test_an_edit_that_was_taken_back_does_not_come_back(tmp_path: Path) -> None:
    """Though the process that saw it taken back had never seen it made."""
    write(tmp_path, agent_yaml=GOOD, prompt_md="Be first.")
    one, other = (load(tmp_path, reloads=True) for _ in range(2))
    write(tmp_path, prompt_md="Be second.")
    one.refresh()
    write(tmp_path, prompt_md="Be first.")
    other.refresh()
    write(tmp_path, prompt_md="")
    for process in (one, other):
        process.refresh()
        assert process.agents["probe"].prompt == "Be first."


def test_removed_agent_stays_removed(live: AgentCatalog, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "probe")
    live.refresh()
    write(tmp_path, agent_yaml="pattern: 1\n", prompt_md="x")
    live.refresh()
    assert dict(live.agents) == {}


def test_without_copies_each_process_serves_its_own_last_good_version(tmp_path: Path) -> None:
    write(tmp_path, agent_yaml=GOOD, prompt_md="Be first.")
    (tmp_path / ".last-good").write_text("in the way")
    alone = load(tmp_path, reloads=True)
    write(tmp_path, prompt_md="")
    alone.refresh()
    assert alone.agents["probe"].prompt == "Be first."


def test_unchanged_contents_are_not_reloaded(live: AgentCatalog, tmp_path: Path) -> None:
    before = live.agents["probe"]
    write(tmp_path, prompt_md="Be good.", tools_py=TOOLS)
    live.refresh()
    assert live.agents["probe"] is before


def test_without_reloading_nothing_is_read_again(tmp_path: Path) -> None:
    write(tmp_path, agent_yaml=GOOD, prompt_md="Be good.")
    fixed = load(tmp_path)
    write(tmp_path, prompt_md="Be better.")
    fixed.refresh()
    assert fixed.agents["probe"].prompt == "Be good."
