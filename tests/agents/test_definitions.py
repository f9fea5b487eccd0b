"""Agent folders: what is read from them, and what is said about those that cannot be."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from service.agents.definitions import FolderFault
from service.agents.patterns import PATTERNS
from service.agents.patterns.router import CategorySpec
from service.agents.spec import EvalCase, agent_schema
from tests.agents import house
from tests.agents.house import GOOD, TOOLS, load

ROOT = Path(__file__).parents[2]
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes an agent's folder below tmp_path; a file given as None is left out."""

    def make(name: str = "probe", **files: str | bytes | None) -> Path:
        content = {"agent_yaml": GOOD, "prompt_md": "Be good.", **files}
        return house.write(tmp_path, name, **content)

    return make


def only_fault(agents_dir: Path) -> FolderFault:
    catalog = load(agents_dir)
    assert len(catalog.faults) == 1, catalog.faults
    assert not catalog.agents
    return catalog.faults[0]


def test_the_bundled_agents_have_no_fault() -> None:
    catalog = load(ROOT / "agents")
    assert catalog.faults == ()
    assert set(catalog.agents) == {"analyst", "assistant", "support"}
    assert {agent.pattern for agent in catalog.agents.values()} == {"single", "router", "react"}
    assert all(len(agent.evals) >= 3 for agent in catalog.agents.values())


def test_the_bundled_evals_find_their_sources_and_words() -> None:
    """Whatever model answers: what an eval expects has to be in the passages the agent would be given."""
    for agent in load(ROOT / "agents").agents.values():
        for case in agent.evals:
            if not case.expect.sources:
                continue
            assert agent.knowledge is not None
            found = agent.knowledge.search(case.input, case.expect.category)
            for source in case.expect.sources:
                assert found[0].uri.startswith(source), (case.input, [one.uri for one in found])


def test_defaults_and_public_view(write: Write) -> None:
    agent = load(write()).agents["probe"]
    assert (agent.id, agent.prompt, agent.max_tokens, agent.effort) == ("probe", "Be good.", 1024, None)
    assert agent.bounds == ("medium", "simple", "complex", True)
    assert agent.public() == {
        "id": "probe",
        "description": "A test agent.",
        "pattern": "single",
        "version": agent.version,
        "models": list(house.MODELS.values()),
        "tools": [],
        "approvals": [],
        "limits": {"rate": None, "steps": 10, "seconds": 120, "model_seconds": None},
    }


def test_own_and_builtin_tools_are_loaded_and_no_others(write: Write) -> None:
    spec = GOOD + "tools: [send, calculator]\napprovals: [send]\n"
    agent = load(write(agent_yaml=spec, tools_py=TOOLS)).agents["probe"]
    assert list(agent.tools) == ["send", "calculator"]
    assert agent.tools["send"].side_effects
    assert agent.approvals == ("send",)


def test_an_agent_whose_tools_only_read_may_be_cached(write: Write) -> None:
    spec = GOOD + "tools: [look, calculator]\ncache: {ttl_seconds: 60, shared: true}\n"
    agent = load(write(agent_yaml=spec, tools_py=TOOLS)).agents["probe"]
    assert (agent.cache.ttl_seconds, agent.cache.shared, agent.cache.stale) == (60, True, False)


def test_a_broken_folder_does_not_take_the_others_down(write: Write) -> None:
    write("good")
    catalog = load(write("bad", prompt_md=None))
    assert list(catalog.agents) == ["good"]
    assert [fault.agent for fault in catalog.faults] == ["bad"]


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
        "there is no such field; there are: approvals, cache,",
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


def test_a_router_takes_two_steps(write: Write) -> None:
    spec = "description: x\npattern: router\nlimits: {steps: 1}\ncategories:\n"
    spec += "  a: {description: A}\n  b: {description: B}\n"
    texts = {f"knowledge__{name}__one_md": "# One\nText." for name in "ab"}
    fault = only_fault(write(agent_yaml=spec, **texts))
    assert (fault.field, fault.line) == ("limits.steps", 3) and "at least 2" in fault.detail


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
    assert "must match" in only_fault(write(name)).detail


def test_hidden_folders_and_loose_files_are_no_agents(write: Write, tmp_path: Path) -> None:
    write(".git")
    write("__pycache__")
    (tmp_path / "README.md").write_text("Agents.")
    catalog = load(tmp_path)
    assert (dict(catalog.agents), catalog.faults) == ({}, ())


def test_no_agents_folder_is_a_fault(tmp_path: Path) -> None:
    assert only_fault(tmp_path / "nowhere").detail == "there is no such folder"


def test_the_version_follows_the_content_and_nothing_else(write: Write, tmp_path: Path) -> None:
    def version(**files: str | bytes | None) -> str:
        return load(write(**files)).agents["probe"].version

    first = version()
    assert re.fullmatch(r"[0-9a-f]{12}", first)
    (tmp_path / "probe" / "__pycache__").mkdir()
    (tmp_path / "probe" / "__pycache__" / "tools.pyc").write_bytes(b"junk")
    assert version() == first
    assert version(prompt_md="Be better.") != first
    assert version(prompt_md="Be good.") == first
    assert version(knowledge__a_md="# A\nNew.") != first


def rows(model: type[BaseModel], prefix: str = "") -> list[str]:
    """The table of a model's fields, one line each, nested ones after the field that holds them."""
    found: list[str] = []
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            found += rows(info.annotation, f"{prefix}{name}.")
            continue
        default = "required"
        if info.default is not PydanticUndefined:
            shown = {None: "none", (): "none", False: "no", True: "yes"}
            plain = info.default if not isinstance(info.default, dict) else ()
            default = f"`{plain}`" if type(plain) is int else shown.get(plain, f"`{plain}`")
        found.append(f"| `{prefix}{name}` | {default} | {info.description} |")
        if name == "categories":
            about = CategorySpec.model_fields["description"].description
            found.append(f"| `categories.<name>.description` | required | {about} |")
    return found


AGENT_YAML = agent_schema(pattern.Options for pattern in PATTERNS.values())


@pytest.mark.parametrize(("heading", "model"), [("`agent.yaml`", AGENT_YAML), ("`evals.yaml`", EvalCase)])
def test_the_docs_list_every_field(heading: str, model: type[BaseModel]) -> None:
    section = (ROOT / "docs/agent-author.md").read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("| `")]
    assert table == rows(model), "\n" + "\n".join(rows(model))


def test_a_byte_order_mark_is_no_part_of_any_file(write: Write) -> None:
    """Editors on Windows put one in front of a text; an agent is the same with it and without."""
    files = {
        "agent_yaml": GOOD + "tools: [look]\n",
        "prompt_md": "Be good.",
        "tools_py": TOOLS,
        "evals_yaml": "- input: Where?\n  expect:\n    contains: [there]\n",
        "knowledge__a__b_md": "# Title\nText.",
    }
    marked = {name: b"\xef\xbb\xbf" + text.encode() for name, text in files.items()}
    catalog = load(write("marked", **marked) and write("bare", **files))
    assert catalog.faults == ()
    bare, with_marks = catalog.agents["bare"], catalog.agents["marked"]
    assert with_marks.prompt == bare.prompt == "Be good."
    assert with_marks.knowledge is not None and bare.knowledge is not None
    assert with_marks.knowledge.passages == bare.knowledge.passages
    assert with_marks.knowledge.passages[0].title == "Title"
    assert (list(with_marks.tools), with_marks.evals) == (list(bare.tools), bare.evals)


@pytest.mark.parametrize("number", ['"١٢"', "١٢", '"１２"', '"²"'])
@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("max_tokens: {}", "max_tokens"),
        ("limits: {{steps: {}}}", "limits.steps"),
        ("limits: {{rate: {}}}", "limits.rate"),
        ("cache: {{ttl_seconds: {}}}", "cache.ttl_seconds"),
    ],
)
def test_numbers_are_in_ascii_digits(write: Write, text: str, field: str, number: str) -> None:
    fault = only_fault(write(agent_yaml=GOOD + text.format(number) + "\n"))
    assert (fault.line, fault.field) == (3, field)
