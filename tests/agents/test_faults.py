"""Faults of agent folders: named with file, line and field."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.agents.folders import Write, only_fault, write
from tests.agents.house import GOOD, TOOLS, load

__all__ = ["write"]
CASES = {
    "yaml": (GOOD + "tools: [a", 3, "", "not YAML"),
    "tab": ("description: x\n\tpattern: single\n", 2, "", "not YAML"),
    "control character": ("description: \x01", 1, "", "not YAML"),
    "impossible date": ("description: 2026-99-99", 1, "", "not YAML"),
    "too deep": ("[" * 5000, 1, "", "not YAML"),
    "python object": ("description: !!python/object/apply:os.getcwd []\n", 1, "", "not YAML"),
    "empty": ("", 1, "", "must hold fields"),
    "list": ("- a\n", 1, "", "must hold fields"),
    "missing": ("description: x\n", 1, "pattern", "Field required"),
    "unknown field": (
        GOOD + "colour: blue\n",
        3,
        "colour",
        "there is no such field; there are: agents, approvals, cache,",
    ),
    "unknown nested": (
        GOOD + "limits:\n  steps: 3\n  step: 3\n",
        5,
        "limits.step",
        "no such field; did you mean 'steps'?",
    ),
    "out of range": (GOOD + "limits:\n  steps: 0\n", 4, "limits.steps", "greater than or equal to 1"),
    "rate": (GOOD + "limits: {rate: often}\n", 3, "limits.rate", "such as 60/minute"),
    "tier": (GOOD + "tier:\n  default: huge\n", 4, "tier.default", "'simple', 'medium' or 'complex'"),
    "tier order": (GOOD + "tier:\n  ceiling: simple\n", 3, "tier", "must be ordered"),
    "model of no tier": (GOOD + "models:\n  simple: a\n  huge: b\n", 5, "models.huge", "'simple'"),
    "twice": (GOOD + "pattern: react\n", 3, "pattern", "is there twice"),
    "twice nested": (GOOD + "limits:\n  steps: 2\n  steps: 3\n", 5, "limits.steps", "is there twice"),
    "unknown pattern": ("description: x\npattern: magic\n", 2, "pattern", "there is no pattern 'magic'"),
    "unknown tool": (
        GOOD + "tools:\n  - calculator\n  - hammer\n",
        5,
        "tools.1",
        "there is no tool 'hammer'",
    ),
    "tool twice": (GOOD + "tools: [calculator, calculator]\n", 3, "tools.1", "is there twice"),
    "approval of no tool": (
        GOOD + "approvals:\n  - send\n",
        4,
        "approvals.0",
        "not one of this agent's tools",
    ),
    "cached side effect": (
        GOOD + "tools: [send]\ncache:\n  ttl_seconds: 5\n",
        5,
        "cache.ttl_seconds",
        "must be 0",
    ),
    "router without categories": ("description: x\npattern: router\n", 1, "categories", "at least two"),
    "category without documents": (
        "description: x\npattern: router\ncategories:\n  a: {description: A}\n  b: {description: B}\n",
        5,
        "categories.b",
        "has no documents in knowledge/b/",
    ),
    "category name": (GOOD + "categories:\n  A b: {description: A}\n", 4, "categories.A b", "match pattern"),
    "categories elsewhere": (GOOD + "categories:\n  a: {description: A}\n", 3, "categories", "has none"),
}


@pytest.mark.parametrize(("text", "line", "field", "detail"), CASES.values(), ids=CASES)
def test_a_fault_in_agent_yaml_names_line_and_field(
    write: Write, text: str, line: int, field: str, detail: str
) -> None:
    fault = only_fault(write(agent_yaml=text, tools_py=TOOLS, knowledge__a__one_md="# One\nText."))
    assert (fault.agent, fault.line, fault.field) == ("probe", line, field)
    assert detail in fault.detail
    assert fault.file.endswith("probe/agent.yaml")
    assert str(fault).startswith(f"{fault.file}:{line}: {field}")


def test_an_alias_that_leads_back_to_itself_is_a_fault(write: Write) -> None:
    assert "agent.yaml" in only_fault(write(agent_yaml=GOOD + "tools: &a [*a]\n")).file


def test_all_faults_of_a_file_are_reported_together(write: Write) -> None:
    faults = load(write(agent_yaml="pattern: 3\nmax_tokens: many\ncolour: blue\n")).faults
    assert {fault.field for fault in faults} == {"description", "pattern", "max_tokens", "colour"}


@pytest.mark.parametrize(
    ("files", "file", "line", "detail"),
    [
        ({"agent_yaml": None}, "agent.yaml", 0, "is missing"),
        ({"agent_yaml": b"\xff\xfe\xfa"}, "agent.yaml", 0, "is not UTF-8"),
        ({"prompt_md": None}, "prompt.md", 0, "is missing"),
        ({"prompt_md": " \n"}, "prompt.md", 0, "is empty"),
        ({"knowledge__a__b_md": b"\xff\xfe\xfa"}, "knowledge/a/b.md", 0, "not UTF-8"),
        ({"tools_py": "x = 1\nraise ValueError('hush')\n"}, "tools.py", 2, "ValueError"),
        ({"tools_py": "def f():\n    raise KeyError('hush')\n\n\nf()\n"}, "tools.py", 2, "KeyError"),
        ({"tools_py": "import json\njson.loads('hush')\n"}, "tools.py", 2, "JSONDecodeError"),
        ({"tools_py": "x = 1\ny = (\n"}, "tools.py", 2, "SyntaxError"),
        ({"tools_py": "import sys\nsys.exit(1)\n"}, "tools.py", 2, "SystemExit"),
        ({"tools_py": "class Panic(BaseException): ...\nraise Panic\n"}, "tools.py", 2, "Panic"),
        ({"tools_py": "from nowhere_at_all import x\n"}, "tools.py", 1, "ModuleNotFoundError"),
        ({"tools_py": TOOLS + "look2 = tool()(lambda x: x)\n"}, "tools.py", 12, "BadTool: "),
        (
            {"tools_py": TOOLS.replace("look", "calculator")},
            "tools.py",
            0,
            "'calculator' is the name of a built-in tool",
        ),
        ({"tools_py": TOOLS + "@tool(name='send')\ndef x() -> str:\n  'X.'\n"}, "tools.py", 1, "two tools"),
        ({"evals_yaml": "- input: ''\n  expect: {}\n"}, "evals.yaml", 1, "at least 1 character"),
        ({"evals_yaml": "- input: a\n  expect: {category: b}\n"}, "evals.yaml", 2, "no category 'b'"),
        ({"evals_yaml": "- input: a\n  expect:\n    tools: [b]\n"}, "evals.yaml", 3, "not one of"),
    ],
)
def test_a_fault_in_another_file(
    write: Write, files: dict[str, str], file: str, line: int, detail: str
) -> None:
    fault = only_fault(write(**files))
    assert (fault.file.endswith(f"probe/{file}"), fault.line) == (True, line), fault
    assert detail in fault.detail
    assert "hush" not in str(fault)


@pytest.mark.parametrize("name", ["Support", "1st", "a b", "ä", "a" * 65])
def test_a_folder_with_a_bad_name_is_a_fault(write: Write, name: str) -> None:
    assert "small letters, digits" in only_fault(write(name)).detail


def test_no_agents_folder_is_a_fault(tmp_path: Path) -> None:
    assert only_fault(tmp_path / "nowhere").detail == "there is no such folder"
