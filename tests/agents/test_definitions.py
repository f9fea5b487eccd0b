"""Agent folders: reading them, and the faults of those that cannot be read."""

from __future__ import annotations

import re
from pathlib import Path
from types import NoneType
from typing import get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from service.agents.eval_spec import EvalCase
from service.agents.patterns import PATTERNS
from service.agents.spec import agent_schema
from service.guardrails.policy import JudgeSpec, Rail, SideSpec
from tests.agents import house
from tests.agents.folders import Write, only_fault, write
from tests.agents.house import GOOD, TOOLS, bundled, load

__all__ = ["write"]
ROOT = Path(__file__).parents[2]


def test_the_bundled_agents_have_no_fault() -> None:
    catalog = bundled()
    assert (catalog.faults, catalog.warnings) == ((), ())
    names = {"analyst", "assistant", "concierge", "newsroom", "research", "support", "writer"}
    assert set(catalog.agents) == names
    assert {agent.pattern for agent in catalog.agents.values()} == set(PATTERNS) - {"code", "remote"}
    assert all(len(agent.evals) >= 3 for agent in catalog.agents.values())


def test_the_bundled_evals_find_their_sources_and_words() -> None:
    """Find the words each eval expects in the passages of its question, whatever the model."""
    for agent in bundled().agents.values():
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
        "examples": [],
        "output_schema": None,
    }


def test_own_and_builtin_tools_are_loaded_and_no_others(write: Write) -> None:
    spec = GOOD + "tools: [send, calculator]\napprovals: [send]\n"
    agent = load(write(agent_yaml=spec, tools_py=TOOLS)).agents["probe"]
    assert list(agent.tools) == ["send", "calculator"]
    assert agent.tools["send"].changes
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


def test_a_router_takes_two_steps(write: Write) -> None:
    spec = "description: x\npattern: router\nlimits: {steps: 1}\ncategories:\n"
    spec += "  a: {description: A}\n  b: {description: B}\n"
    texts = {f"knowledge__{name}__one_md": "# One\nText." for name in "ab"}
    fault = only_fault(write(agent_yaml=spec, **texts))
    assert (fault.field, fault.line) == ("limits.steps", 3) and "at least 2" in fault.detail


def test_hidden_folders_and_loose_files_are_no_agents(write: Write, tmp_path: Path) -> None:
    write(".git")
    write("__pycache__")
    (tmp_path / "README.md").write_text("Agents.")
    catalog = load(tmp_path)
    assert (dict(catalog.agents), catalog.faults) == ({}, ())


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
        if info.annotation is Rail:  # which has a page of its own
            found.append(f"| `{prefix}{name}` | none | {info.description} |")
            continue
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            found += rows(info.annotation, f"{prefix}{name}.")
            continue
        default = "required"
        if info.default is not PydanticUndefined:
            shown = {None: "none", (): "none", False: "no", True: "yes"}
            plain = info.default if not isinstance(info.default, dict) else ()
            default = f"`{plain}`" if type(plain) is int else shown.get(plain, f"`{plain}`")
        found.append(f"| `{prefix}{name}` | {default} | {info.description} |")
        for inner in get_args(info.annotation):  # of a mapping, by names that the author chooses
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                plain = NoneType in get_args(info.annotation) or get_origin(info.annotation) is tuple
                named = "" if plain else "<name>."
                found += rows(inner, f"{prefix}{name}.{named}")
    return found


AGENT_YAML = agent_schema(pattern.Options for pattern in PATTERNS.values())


@pytest.mark.parametrize(("heading", "model"), [("`agent.yaml`", AGENT_YAML), ("`evals.yaml`", EvalCase)])
def test_the_docs_list_every_field(heading: str, model: type[BaseModel]) -> None:
    section = (ROOT / "docs/agent-author.md").read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("| `")]
    assert table == rows(model), "\n" + "\n".join(rows(model))


def test_the_page_of_guardrails_lists_every_field() -> None:
    section = (ROOT / "docs/guardrails.md").read_text().split("## Fields\n")[1].split("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("| `")]
    fields = [*rows(SideSpec), *rows(JudgeSpec, "judge.")]
    assert table == fields, "\n" + "\n".join(fields)


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
