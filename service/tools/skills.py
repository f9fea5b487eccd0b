"""Skills of an agent's folder, after the open format of agentskills.io: `skills/<name>/SKILL.md` and files beside it.

All texts are read when the agent is loaded, so a call can reach no other file. Nothing of a skill is ever executed.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from service.text.leftovers import counts

FOLDER = "skills"
MAIN = ("SKILL.md", "skill.md")  # the first that exists
MAX_SKILLS = 50
MAX_NAME = 64  # characters
MAX_DESCRIPTION = 1024  # characters
MAX_COMPATIBILITY = 500  # characters
MAX_LISTED = 12_000  # characters of names and descriptions, which every prompt has
MAX_FILES = 100  # of one skill
MAX_FILE = 256 * 1024  # bytes
MAX_BYTES = 4 * 1024 * 1024  # of all skills of an agent
_MARK = re.compile(r"---[ \t]*\r?(?:\n|$)")


class SkillFault(Exception):
    """Raised for a skill that breaks a rule of the format, at a line of its file; 0: the whole file. For the author."""

    def __init__(self, path: Path, line: int, detail: str) -> None:
        super().__init__(detail)
        self.path = path
        self.line = line
        self.detail = detail


class Skill(NamedTuple):
    """Skill: `body` is the text of its SKILL.md without the front matter, `files` the other texts by their paths."""

    name: str
    description: str
    body: str
    files: Mapping[str, str]

    @property
    def texts(self) -> Iterator[str]:
        yield self.body
        yield from self.files.values()


def load_skills(agent: Path) -> tuple[Skill, ...]:
    """Read the skills of an agent's folder, by name; none without a folder `skills`. Raises `SkillFault`."""
    place = agent / FOLDER
    if not place.is_dir():
        return ()
    folders = sorted(path for path in place.iterdir() if counts(path.name) and path.is_dir())
    if len(folders) > MAX_SKILLS:
        raise SkillFault(place, 0, f"has {len(folders)} skills: at most {MAX_SKILLS}")
    skills, left = [], MAX_BYTES
    for folder in folders:
        skill = _skill(folder)
        left -= sum(len(text.encode()) for text in skill.texts)
        if left < 0:
            raise SkillFault(folder, 0, f"all skills together have more than {MAX_BYTES} bytes of text")
        skills.append(skill)
    listed = sum(len(skill.name) + len(skill.description) for skill in skills)
    if listed > MAX_LISTED:
        detail = (
            f"names and descriptions have {listed} characters, which every prompt has: at most {MAX_LISTED}"
        )
        raise SkillFault(place, 0, detail)
    return tuple(skills)


def _skill(folder: Path) -> Skill:
    main = next((folder / name for name in MAIN if (folder / name).is_file()), None)
    if main is None:
        raise SkillFault(folder / MAIN[0], 0, "is missing: a skill has one")
    text = _text(main, os.path.realpath(folder))
    if text is None:
        raise SkillFault(
            main, 0, f"must be a text in UTF-8 of at most {MAX_FILE} bytes, in this folder itself"
        )
    fields, body = _parsed(main, text)
    name = _name(main, fields, folder.name)
    description = _description(main, fields)
    compatibility = fields.get("compatibility", "")
    if not isinstance(compatibility, str) or len(compatibility) > MAX_COMPATIBILITY:
        raise SkillFault(main, 1, f"`compatibility` must be a text of at most {MAX_COMPATIBILITY} characters")
    return Skill(name, description, body, _files(folder, main))


def _parsed(main: Path, text: str) -> tuple[Mapping[str, Any], str]:
    """Split a SKILL.md into the fields of its front matter and its body. Unknown fields are accepted."""
    text = text.removeprefix("\ufeff")
    if not _MARK.match(text):
        raise SkillFault(main, 1, "must begin with front matter, between two lines of ---")
    lines = text.splitlines(keepends=True)
    end = next((number for number, line in enumerate(lines[1:], 1) if _MARK.fullmatch(line)), None)
    if end is None:
        raise SkillFault(main, 1, "the front matter has no end: a second line of ---")
    front = "".join(lines[1:end])
    try:
        fields = yaml.load(front, Loader=yaml.BaseLoader)  # every value is a text, as the format has it
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 2 if error.problem_mark else 1
        raise SkillFault(main, line, f"not YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SkillFault(main, 1, f"not YAML: {type(error).__name__}") from None
    if not isinstance(fields, dict):
        raise SkillFault(main, 1, "the front matter must hold fields: `name: value`")
    return fields, "".join(lines[end + 1 :]).strip()


def _name(main: Path, fields: Mapping[str, Any], folder: str) -> str:
    name = fields.get("name")
    if not isinstance(name, str) or not name.strip():
        raise SkillFault(main, 1, "`name` is missing: it is that of the folder")
    name = unicodedata.normalize("NFKC", name.strip())
    is_word = all(one.isalnum() or one == "-" for one in name) and name == name.lower()
    if len(name) > MAX_NAME or not is_word or name.strip("-") != name or "--" in name:
        detail = (
            f"`name` has small letters, digits and single hyphens between them, at most {MAX_NAME} characters"
        )
        raise SkillFault(main, 1, detail)
    if name != unicodedata.normalize("NFKC", folder):
        raise SkillFault(main, 1, f"`name` is {name!r}, and the folder {folder!r}: they must be the same")
    return name


def _description(main: Path, fields: Mapping[str, Any]) -> str:
    description = fields.get("description")
    if not isinstance(description, str) or not description.strip():
        raise SkillFault(main, 1, "`description` is missing: it tells the model when to use the skill")
    if len(description) > MAX_DESCRIPTION:
        detail = f"`description` has {len(description)} characters: at most {MAX_DESCRIPTION}"
        raise SkillFault(main, 1, detail)
    return " ".join(description.split())


def _files(folder: Path, main: Path) -> Mapping[str, str]:
    """Read the texts beside a SKILL.md, by their paths; other files, and links out of the folder, are left out."""
    found: dict[str, str] = {}
    inside = os.path.realpath(folder)
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if counts(name))
        for path in (Path(root, name) for name in sorted(names) if counts(name)):
            if path == main or (text := _text(path, inside)) is None:
                continue
            found[path.relative_to(folder).as_posix()] = text
            if len(found) > MAX_FILES:
                raise SkillFault(folder, 0, f"has more than {MAX_FILES} texts")
    return found


def _text(path: Path, inside: str) -> str | None:
    """Return a text; None for a file that is none, is too large, or lies elsewhere."""
    real = os.path.realpath(path)
    if not real.startswith(inside + os.sep) or not os.path.isfile(real):
        return None
    try:
        with open(real, "rb") as file:
            content = file.read(MAX_FILE + 1)
        text = content.decode()
    except (OSError, UnicodeDecodeError):
        return None
    return None if len(content) > MAX_FILE or "\x00" in text else text
