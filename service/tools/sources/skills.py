"""Tool source of `load_skill`, for an agent with skills in its folder; its description has their names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from service.tools.base import Tool, ToolFailed, tool
from service.tools.skills import FOLDER, MAIN, Skill, SkillFault, load_skills
from service.tools.sources.base import SourceFault

LOAD_SKILL = "load_skill"
SHOWN = 15_000  # characters of a text in one result …
MAX_LISTED = 2_000  # … and of the names of others
DESCRIPTION = """Load the instructions of a skill. Do so before work that a description below fits, then follow them.

{skills}

Args:
    name: The skill.
    file: Another text of the skill, as its instructions name it. Scripts are texts like others: they are not run.
    start: Character at which to begin, for the rest of a long text."""


class SkillTools:
    """Tool source of the skills in an agent's folder, if present."""

    kind = "built-in"
    file = FOLDER

    def tools(self, folder: Path) -> Mapping[str, Tool]:
        try:
            skills = load_skills(folder)
        except SkillFault as fault:
            where = fault.path.relative_to(folder).as_posix()
            raise SourceFault(where, fault.line, fault.detail) from None
        return {LOAD_SKILL: _load_tool(skills)} if skills else {}


def _load_tool(skills: Sequence[Skill]) -> Tool:
    known = {skill.name: skill for skill in skills}

    def load_skill(
        name: Annotated[str, Field(min_length=1, max_length=128)],
        file: Annotated[str, Field(min_length=1, max_length=500)] = MAIN[0],
        start: Annotated[int, Field(ge=0, le=1_000_000)] = 0,
    ) -> str:
        skill = known.get(name)
        if skill is None:
            raise ToolFailed("There is no such skill; there are: " + ", ".join(known))
        text = skill.body if file in MAIN else skill.files.get(file)
        if text is None:
            raise ToolFailed(f"{name} has no such text; there are: {_listed([MAIN[0], *skill.files])}")
        about = f"Skill {name}, {file}"
        if start or len(text) > SHOWN:
            about += f", characters {start} to {min(start + SHOWN, len(text))} of {len(text)}"
        if file in MAIN and skill.files:
            about += f". Its other texts: {_listed(skill.files)}"
        return f"{about}.\n\n{text[start : start + SHOWN]}"

    load_skill.__doc__ = DESCRIPTION.format(
        skills="\n".join(f"- {skill.name}: {skill.description}" for skill in skills)
    )
    return tool(idempotent=True, risk="read", timeout=5, trusted=True)(load_skill)


def _listed(files: Iterable[str]) -> str:
    return ", ".join(files)[:MAX_LISTED]
