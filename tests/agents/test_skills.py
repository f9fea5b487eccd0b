"""Skills in an agent's folder: the open format, what the model sees of them, and faults that name the file."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.tools import Tool, ToolContext, ToolFailed
from service.tools.skills import MAX_FILE, SkillFault, load_skills
from service.tools.sources.skills import LOAD_SKILL, SHOWN
from tests.agents.folders import Write, only_fault, write
from tests.agents.house import REACT, load

__all__ = ["write"]
SKILL = """---
name: refunds
description: How to work out a refund. Use it for questions about money back.
license: MIT
metadata:
  author: harbor
allowed-tools: Read
future-field: [1, 2]
---

# Refunds

See references/table.md and https://help.harbor.example/refunds.
"""
FILES = {
    "skills__refunds__SKILL_md": SKILL,
    "skills__refunds__references__table_md": "| plan | days |",
    "skills__refunds__scripts__run_py": "raise SystemExit('a script was run')",
    "skills__refunds__logo_png": b"\x89PNG\x00\xff",
}


def written(folder: Path, text: str | bytes = SKILL, name: str = "refunds", file: str = "SKILL.md") -> Path:
    path = folder / "skills" / name / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def use(tool: Tool, **given: object) -> str:
    return str(tool.run(given, ToolContext("run_1", "usr_1", "probe", "call_1", time.monotonic() + 60)))


def test_model_sees_names_and_loads_the_rest(write: Write) -> None:
    agent = load(write(agent_yaml=REACT, **FILES)).agents["probe"]
    tool = agent.tools[LOAD_SKILL]
    assert "- refunds: How to work out a refund. Use it for questions" in tool.for_model()["description"]
    assert "Refunds\n" not in str(tool.for_model())
    assert (agent.skills, tool.risk, tool.trusted, tool.changes) == (("refunds",), "read", True, False)
    assert "help.harbor.example" in agent.skill_hosts
    loaded = use(tool, name="refunds")
    assert loaded.startswith("Skill refunds, SKILL.md. Its other texts: references/table.md, scripts/run.py.")
    assert "# Refunds" in loaded and "license" not in loaded
    assert use(tool, name="refunds", file="references/table.md").endswith("| plan | days |")
    assert "a script was run" in use(tool, name="refunds", file="scripts/run.py")


def test_nothing_else_can_be_read(write: Write, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("17")
    agents_dir = write(agent_yaml=REACT, prompt_md="The prompt.", **FILES)
    folder = agents_dir / "probe" / "skills" / "refunds"
    (folder / "linked.txt").symlink_to(secret)
    (folder / "inner").symlink_to(tmp_path)
    (folder / "prompt.txt").symlink_to(agents_dir / "probe" / "prompt.md")
    tool = load(agents_dir).agents["probe"].tools[LOAD_SKILL]
    for file in (
        "../../prompt.md",
        str(secret),
        "linked.txt",
        "inner/secret.txt",
        "prompt.txt",
        "logo.png",
        ".",
        "/etc/passwd",
    ):
        with pytest.raises(ToolFailed, match="has no such text"):
            use(tool, name="refunds", file=file)
    for name in ("../probe", "nothing", ".."):
        with pytest.raises(ToolFailed, match="There is no such skill; there are: refunds"):
            use(tool, name=name)


def test_long_text_is_read_in_pieces(tmp_path: Path) -> None:
    written(tmp_path, SKILL + "x" * 2 * SHOWN)
    [skill] = load_skills(tmp_path)
    from service.tools.sources.skills import SkillTools

    tool = SkillTools().tools(tmp_path)[LOAD_SKILL]
    pieces, start = "", 0
    while start < len(skill.body):
        piece = use(tool, name="refunds", start=start)
        assert f"characters {start} to" in piece
        pieces += piece.partition("\n\n")[2]
        start += SHOWN
    assert pieces == skill.body


def front(**fields: str) -> str:
    known = {"name": "refunds", "description": "About refunds.", **fields}
    return "---\n" + "".join(f"{name}: {value}\n" for name, value in known.items() if value) + "---\nBody."


FAULTS: list[tuple[str | bytes, int, str]] = [
    ("Just text.", 1, "must begin with front matter"),
    ("---\nname: refunds\n", 1, "has no end"),
    ("---\nname: [\n---\n", 3, "not YAML"),
    ("---\n- a\n---\n", 1, "must hold fields"),
    (front(name=""), 1, "`name` is missing"),
    (front(name="Refunds"), 1, "small letters"),
    (front(name="-refunds"), 1, "small letters"),
    (front(name="re--funds"), 1, "small letters"),
    (front(name="re_funds"), 1, "small letters"),
    (front(name="other"), 1, "they must be the same"),
    (front(description=""), 1, "`description` is missing"),
    (front(description="x" * 1025), 1, "at most 1024"),
    (front(compatibility="x" * 501), 1, "at most 500"),
    (b"---\nname: refunds\n\xff", 0, "must be a text in UTF-8"),
    ("x" * (MAX_FILE + 1), 0, "must be a text in UTF-8"),
]


def test_broken_skill_is_a_fault_of_the_agent_that_names_the_file(write: Write) -> None:
    agents_dir = write(agent_yaml=REACT)
    for text, line, words in FAULTS:
        written(agents_dir / "probe", text)
        fault = only_fault(agents_dir)
        assert fault.file.endswith("probe/skills/refunds/SKILL.md"), fault
        assert (fault.line, words in fault.detail) == (line, True), fault
    (agents_dir / "probe" / "skills" / "refunds" / "SKILL.md").unlink()
    assert "is missing: a skill has one" in only_fault(agents_dir).detail


def test_last_good_version_goes_on_and_a_text_changes_the_version(write: Write) -> None:
    agents_dir = write(agent_yaml=REACT, **FILES)
    catalog = load(agents_dir, reloads=True)
    before = catalog.agents["probe"]
    written(agents_dir / "probe", "broken")
    catalog.refresh()
    assert catalog.faults and catalog.agents["probe"].version == before.version
    written(agents_dir / "probe", SKILL)
    written(agents_dir / "probe", "| plan | weeks |", file="references/table.md")
    catalog.refresh()
    after = catalog.agents["probe"]
    assert not catalog.faults and after.version != before.version
    assert "weeks" in use(after.tools[LOAD_SKILL], name="refunds", file="references/table.md")


def test_skills_are_bounded(tmp_path: Path) -> None:
    for number in range(12):
        written(tmp_path, front(name=f"s{number}", description="x" * 1020), f"s{number}")
    with pytest.raises(SkillFault, match="at most 12000"):
        load_skills(tmp_path)


def test_pattern_without_tools_warns_of_skills(write: Write) -> None:
    [warning] = load(write(**FILES)).warnings
    assert (warning.file.rpartition("/")[2], warning.severity) == ("skills", "warning")
    assert "pattern single reads no skills: use react" in warning.detail


def test_agent_may_list_the_tool_itself_and_have_folders_without_skills(write: Write) -> None:
    agents_dir = write(
        agent_yaml=REACT + "tools: [load_skill, calculator]\n", skills___hidden__x="x", **FILES
    )
    assert list(load(agents_dir).agents["probe"].tools) == [LOAD_SKILL, "calculator"]


def test_no_skills_no_tool(write: Write) -> None:
    agents_dir = write(agent_yaml=REACT + "tools: [calculator]\n", skills__README_md="None yet.")
    assert list(load(agents_dir).agents["probe"].tools) == ["calculator"]


@pytest.mark.conformance
def test_the_formats_own_program_agrees(tmp_path: Path) -> None:
    """`JUDGES_PYTHON` is the python of an environment with `skills-ref`, which knows no further fields."""
    python = os.environ.get("JUDGES_PYTHON", sys.executable)
    check = "import pathlib, sys, skills_ref.validator as v; print(v.validate(pathlib.Path(sys.argv[1])))"
    if subprocess.run([python, "-c", "import skills_ref"], capture_output=True, check=False).returncode:
        pytest.skip("JUDGES_PYTHON has no skills-ref")
    texts = [
        SKILL.replace("future-field: [1, 2]\n", ""),
        *(text for text, _, _ in FAULTS if isinstance(text, str)),
    ]
    for text in texts:
        written(tmp_path, text)
        asked = [python, "-c", check, str(tmp_path / "skills" / "refunds")]
        theirs = subprocess.run(asked, capture_output=True, text=True, check=False)
        try:
            load_skills(tmp_path)
            ours = "[]"
        except SkillFault:
            ours = "faults"
        assert (theirs.stdout.strip() == "[]") == (ours == "[]"), (text[:200], theirs.stdout)
