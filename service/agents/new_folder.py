"""Folder of a new agent, from the template of its pattern: `service/agents/templates/<pattern>/`."""

from __future__ import annotations

import shutil
from pathlib import Path

from service.agents.files import counted
from service.agents.loader import FOLDER, NAME_RULE
from service.agents.patterns import PATTERNS
from service.errors import Conflict, Invalid

TEMPLATES = Path(__file__).parent / "templates"


def patterns() -> list[str]:
    """Patterns that have a template, by name."""
    return sorted(name for name in PATTERNS if (TEMPLATES / name).is_dir())


def new_folder(agents_dir: Path, name: str, pattern: str) -> Path:
    """Write a folder that can be run at once. Raises `Invalid` for a bad name, and `Conflict` if it is taken."""
    if not FOLDER.fullmatch(name):
        raise Invalid(f"{name!r} is no name of an agent: it has only {NAME_RULE}")
    folder, unfinished = agents_dir / name, agents_dir / f".{name}.new"  # the catalog reads no hidden folders
    if folder.exists():
        raise Conflict(f"{folder} is there already: choose another name.")
    agents_dir.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(unfinished, ignore_errors=True)
    template = TEMPLATES / pattern
    for path in counted(template):
        target = unfinished / path.relative_to(template)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    unfinished.rename(folder)
    return folder
