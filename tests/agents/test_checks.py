"""Warnings for authors: folders that load, with settings that have no effect or an unintended one."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from service.agents.catalog import AgentCatalog
from service.knowledge import folder as folders
from service.types import Tier
from tests.agents.house import AVAILABLE, GOOD, MODELS, REACT, TOOLS, load, write

ROUTER = """\
description: A test agent.
pattern: router
categories:
  billing: {description: Money.}
  general: {description: The rest.}
"""
DOCUMENTS = {"knowledge__billing__a_md": "# A\nText.", "knowledge__general__b_md": "# B\nText."}


def warnings(agents_dir: Path) -> list[str]:
    """As `flask agents check` prints them, without the folder. The agent is served all the same."""
    catalog = load(agents_dir)
    assert catalog.faults == () and list(catalog.agents) == ["probe"]
    return [str(one).removeprefix(f"{agents_dir}/probe/") for one in catalog.warnings]


def fault(agents_dir: Path) -> str:
    """The only one."""
    [found] = load(agents_dir).faults
    return str(found).removeprefix(f"{agents_dir}/probe/")


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ("{type: objec}", "agent.yaml:3: output_schema.type: must be array, boolean"),
        (
            "{properties: {a: {$ref: 'https://a.test/'}}}",
            "agent.yaml:3: output_schema.properties.a.$ref: must lead to",
        ),
        ("{const: 2026-11-30}", "agent.yaml:3: output_schema: must be JSON"),
        ("[]", "agent.yaml:3: output_schema: must hold fields"),
    ],
)
def test_a_faulty_schema_is_a_fault(tmp_path: Path, schema: str, said: str) -> None:
    spec = f"{GOOD}output_schema: {schema}\n"
    assert fault(write(tmp_path, agent_yaml=spec, prompt_md="x")).startswith(said)


def test_a_faulty_table_is_a_fault_with_its_line(tmp_path: Path) -> None:
    agents_dir = write(tmp_path, agent_yaml=REACT + "tools: [query_table]\n", prompt_md="x")
    (tmp_path / "probe" / "tables").mkdir()
    (tmp_path / "probe" / "tables" / "usage.csv").write_text("a,b\n1\n")
    assert fault(agents_dir) == "tables/usage.csv:2: has 1 cells, the header 2"


def test_tables_that_no_tool_reads_and_a_tool_without_tables(tmp_path: Path) -> None:
    agents_dir = write(tmp_path, agent_yaml=REACT + "tools: [query_table]\n", prompt_md="x")
    assert fault(agents_dir) == "agent.yaml:3: tools.0: there is no tool 'query_table': write tables/*.csv"
    write(tmp_path, agent_yaml=REACT + "tools: [calculator]\n")
    (tmp_path / "probe" / "tables").mkdir()
    (tmp_path / "probe" / "tables" / "usage.csv").write_text("a,b\n1,2\n")
    assert warnings(agents_dir) == [
        "tables: warning: no tool reads these tables: list query_table under `tools`"
    ]


def test_examples_are_few_and_short(tmp_path: Path) -> None:
    spec = GOOD + f"examples: [{', '.join('abcdefghijk')}]\n"
    assert "agent.yaml:3: examples: " in fault(write(tmp_path, agent_yaml=spec, prompt_md="x"))


@pytest.mark.parametrize("spec", [GOOD, REACT + "tools: [calculator]\n"])
def test_an_agent_in_order_has_none(tmp_path: Path, spec: str) -> None:
    assert warnings(write(tmp_path, agent_yaml=spec, prompt_md="x")) == []


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            GOOD + "tools: [calculator]\n",
            "agent.yaml:3: warning: tools: pattern single calls no tools: use react, or leave them out",
        ),
        (
            ROUTER + "tools:\n  - calculator\n",
            "agent.yaml:6: warning: tools: pattern router calls no tools: use react, or leave them out",
        ),
        (
            REACT,
            "agent.yaml:2: warning: pattern: react without tools: list some under `tools`, or use single",
        ),
        (
            GOOD + "models:\n  simple: claude-haiku-5.5\n",
            "agent.yaml:4: warning: models.simple: 'claude-haiku-5.5' has no price, so its calls are refused; "
            "did you mean 'claude-haiku-5-5'?",
        ),
        (
            REACT + "tools:\n  - calculator\n  - search_knowledge\n",
            "agent.yaml:5: warning: tools.1: search_knowledge has nothing to search: write knowledge/*.md",
        ),
    ],
)
def test_field_without_effect_is_a_warning_with_its_line(tmp_path: Path, spec: str, said: str) -> None:
    documents = DOCUMENTS if spec.startswith(ROUTER) else {}
    assert warnings(write(tmp_path, agent_yaml=spec, prompt_md="x", **documents)) == [said]


def test_a_model_of_the_settings_is_not_looked_for_in_the_folder(tmp_path: Path) -> None:
    write(tmp_path, agent_yaml=GOOD + "models: {medium: claude-opus-5-5}\n", prompt_md="x")
    models: dict[Tier, str] = {**MODELS, "simple": "claude-haiku-5.5"}
    [warning] = AgentCatalog(tmp_path, replace(AVAILABLE, models=models)).warnings
    assert str(warning) == (
        f"{tmp_path}/probe/agent.yaml: warning: 'claude-haiku-5.5', of the setting MODEL_SIMPLE, has no price, "
        "so its calls are refused; did you mean 'claude-haiku-5-5'?"
    )


def test_documents_that_are_not_read_are_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "MAX_DOCUMENT", 2 * 1024**2)
    write(tmp_path, agent_yaml=ROUTER, prompt_md="x", **DOCUMENTS)
    folder = tmp_path / "probe" / "knowledge"
    for name in (
        "a.doc",
        "b.mdx",
        "c.xls",
        ".d.md",
        ".git/e.md",
        ".DS_Store",
        ".git/config",
        "f.md~",
        "billing/g.md",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("# X\nText.")
    (folder / "billing" / "big.md").write_text("x" * (2 * 1024**2 + 1))
    os.mkfifo(folder / "billing" / "pipe.md")
    (folder / "notes.md").mkdir()  # a folder may be called so
    assert warnings(tmp_path) == [
        "knowledge/.d.md: warning: is not read: it is hidden, by a dot at the beginning of its name or its folder's",
        "knowledge/.git/e.md: warning: is not read: it is hidden, by a dot at the beginning of its name or its "
        "folder's",
        "knowledge/a.doc: warning: is not read: its name does not end in .md, .txt, .html or .pdf",
        "knowledge/b.mdx: warning: is not read: its name does not end in .md, .txt, .html or .pdf",
        "knowledge/billing/big.md: warning: is not read: it is larger than 2 MiB: split it",
        "knowledge/billing/pipe.md: warning: is not read: it is no regular file",
        "knowledge/c.xls: warning: is not read: its name does not end in .md, .txt, .html or .pdf",
    ]


def test_documents_that_no_question_finds_are_named(tmp_path: Path) -> None:
    write(tmp_path, agent_yaml=ROUTER, prompt_md="x", **DOCUMENTS, knowledge__top_md="# T\nText.")
    write(tmp_path, knowledge__biling__c_md="# C\nText.\n## D\nMore.")
    tail = "warning: is in no category, so no question finds it: move it to knowledge/billing/ or knowledge/general/"
    assert warnings(tmp_path) == [f"knowledge/biling/c.md: {tail}", f"knowledge/top.md: {tail}"]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (GOOD, "pattern single reads no documents: use router, or react with the tool search_knowledge"),
        (
            REACT + "tools: [calculator]\n",
            "no tool reads these documents: list search_knowledge under `tools`",
        ),
        (REACT + "tools: [search_knowledge]\n", ""),
        (REACT + "tools: [look]\n", ""),  # it may search them itself
    ],
)
def test_documents_that_the_pattern_does_not_read_are_named(tmp_path: Path, spec: str, said: str) -> None:
    write(tmp_path, agent_yaml=spec, prompt_md="x", tools_py=TOOLS, knowledge__a_md="# A\nText.")
    assert warnings(tmp_path) == ([f"knowledge: warning: {said}"] if said else [])


def test_links_out_of_the_folder_are_named_and_read(tmp_path: Path) -> None:
    write(tmp_path, agent_yaml=ROUTER, **DOCUMENTS)
    (tmp_path / "shared.md").write_text("Be shared.")
    (tmp_path / "probe" / "prompt.md").symlink_to("../shared.md")
    (tmp_path / "probe" / "knowledge" / "more").symlink_to("/usr/share/doc")
    assert warnings(tmp_path) == [
        "knowledge/more: warning: is not read: it is a link to a folder: put the folder in its place",
        "prompt.md: warning: is a link out of the folder: put a copy in its place, to go where the folder goes",
        "knowledge/more: warning: is a link out of the folder: put a copy in its place, to go where the folder goes",
    ]
    assert load(tmp_path).agents["probe"].prompt == "Be shared."


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"agent_yaml": GOOD + "limit:\n  steps: 3\n"},
            "agent.yaml:3: limit: there is no such field; did you mean 'limits'?",
        ),
        (
            {"agent_yaml": ROUTER.replace("{description: Money.}", "{descripton: Money., description: x}")},
            "agent.yaml:4: categories.billing.descripton: there is no such field; did you mean 'description'?",
        ),
        (
            {"agent_yaml": REACT + "tools: [calulator]\n"},
            "agent.yaml:3: tools.0: there is no tool 'calulator'; did you mean 'calculator'?",
        ),
        (
            {"agent_yaml": REACT + "tools: [look]\napprovals: [lok]\n"},
            "agent.yaml:4: approvals.0: 'lok' is not one of this agent's tools; did you mean 'look'?",
        ),
        (
            {"evals_yaml": "- input: a\n  expect:\n    contain: [b]\n"},
            "evals.yaml:3: 0.expect.contain: there is no such field; did you mean 'contains'?",
        ),
        (
            {"agent_yaml": GOOD + "limits:\n  model_seconds: 0.5\n"},
            "agent.yaml:4: limits.model_seconds: Input should be greater than or equal to 1",
        ),
        (
            {"agent_yaml": GOOD + "limits:\n  model_seconds: 601\n"},
            "agent.yaml:4: limits.model_seconds: Input should be less than or equal to 600",
        ),
        (
            {"tools_py": "from service.tools import tool\n\n\ndef f(:\n    pass\n"},
            "tools.py:4: SyntaxError: invalid syntax",
        ),
        (
            {"tools_py": "import requestz\n"},
            "tools.py:1: ModuleNotFoundError: there is no module 'requestz': install it where Slipway runs",
        ),
        (
            {"tools_py": "from service.tools import tol\n"},
            "tools.py:1: ImportError: 'service.tools' does not have all that this line imports",
        ),
        (
            {"tools_py": TOOLS + "\n@tool()\ndef other(a: Strin) -> str:\n    'X.'\n    return a\n"},
            "tools.py:13: NameError: 'Strin' is not defined: import or define it above",
        ),
        (
            {"tools_py": TOOLS.replace('    "Send something."\n', "")},
            "tools.py:8: BadTool: tool 'send' needs a docstring: it tells the model when to use it",
        ),
        (
            {"tools_py": TOOLS.replace("to: str", "to")},
            "tools.py:8: BadTool: tool 'send': parameter 'to' needs a type, such as str",
        ),
        (
            {"tools_py": TOOLS.replace("to: str", "*to: str")},
            "tools.py:8: BadTool: tool 'send': parameter 'to' must be an ordinary named one, without * or /",
        ),
        (
            {"tools_py": TOOLS.replace("to: str", "to: object()")},
            "tools.py:8: BadTool: tool 'send': parameter 'to' has a type that cannot come as JSON: "
            "use str, int, float, bool, list, dict, Literal or a pydantic model",
        ),
        (
            {"tools_py": TOOLS.replace("@tool()", "@tool")},
            "tools.py:8: BadTool: write @tool() with parentheses",
        ),
        (
            {"tools_py": TOOLS.replace("@tool()", "@tool(risk='writes')")},
            "tools.py:8: BadTool: tool 'send': risk must be one of read, write, danger",
        ),
        (
            {"tools_py": TOOLS.replace("@tool()", "@tool(risks=False)")},
            "tools.py:8: TypeError: @tool() takes no 'risks'; did you mean 'risk'?",
        ),
        (
            {"agent_yaml": REACT + "tools: look\n"},
            "agent.yaml:3: tools: must be a list: one in each line after a dash, or [one, other]",
        ),
        (
            {"agent_yaml": REACT + "limits: 3\n"},
            "agent.yaml:3: limits: must hold fields: `name: value`, each in a line of its own",
        ),
        (
            {"agent_yaml": REACT + "limits:\n  rate: 60/min\n"},
            "agent.yaml:4: limits.rate: must be a number of calls and a time, such as 60/minute: second, minute, "
            "hour or day",
        ),
        (
            {"evals_yaml": "input: x\n"},
            "evals.yaml:1: must be a list: one in each line after a dash, or [one, other]",
        ),
        (
            {"tools_py": TOOLS.replace("def send", "async def send")},
            "tools.py:8: BadTool: tool 'send': async functions are not supported: leave async out",
        ),
    ],
)
def test_a_fault_names_its_line_and_the_way_out(tmp_path: Path, files: dict[str, str], said: str) -> None:
    content = {"agent_yaml": REACT + "tools: [look]\n", "prompt_md": "x", "tools_py": TOOLS, **files}
    assert fault(write(tmp_path, **content)) == said
