"""Agents with evals that tests write, and `flask evals` over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from click.testing import Result
from flask import Flask

from config import load
from service import wiring
from service.app import create_app
from service.runs.recovery.supervisor import ProcessRole

Evals = Callable[..., Result]
REACT = "description: A test agent.\npattern: react\n"
SINGLE = "description: A test agent.\npattern: single\n"


def write_agent(
    agents_dir: Path,
    cases: list[dict[str, Any]],
    *,
    spec: str = SINGLE,
    prompt: str = "Be good.",
    **files: str,
) -> Path:
    """Write the agent `probe`; `files`, with `_` for a dot."""
    folder = agents_dir / "probe"
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"agent_yaml": spec, "prompt_md": prompt, "evals_yaml": yaml.safe_dump(cases), **files}
    for name, text in texts.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


def app_of(agents_dir: Path, env: Mapping[str, str]) -> Flask:
    """Make an app whose own database does not exist: evals do not ask it."""
    settings = load({"APP_ENV": "testing", "LOG_LEVEL": "ERROR", "AGENTS_DIR": str(agents_dir), **env})
    return create_app(settings, wiring.build(settings, ProcessRole("cli")))


def evals_of(app: Flask) -> Evals:
    """Return a function that runs `flask evals` with words; it must end with `code`."""

    def evals(*words: object, code: int = 0) -> Result:
        result = app.test_cli_runner().invoke(args=["evals", *map(str, words)])
        assert result.exit_code == code, result.output + repr(result.exception)
        return result

    return evals
