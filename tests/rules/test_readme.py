"""Commands of the README, run word for word but for the port, print the answers shown."""

from __future__ import annotations

import json
import re
import subprocess

from tests.conftest import ROOT
from tests.launcher.house import Launcher
from tests.web.test_doors import events_of

README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def blocks(kind: str) -> list[str]:
    """Return the code blocks of a language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S)
    return [text for name, text in found if name == kind]


def typed(lines: str, launched: Launcher) -> str:
    """Run lines in a shell; return their output."""
    lines = lines.replace("http://127.0.0.1:8000", launched.url)
    done = subprocess.run(["bash", "-euc", lines], capture_output=True, text=True, timeout=60, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout


def same_as_far_as_shown(shown: object, real: object) -> bool:
    """`…` in what is shown stands for something longer, or something that differs each time."""
    if isinstance(shown, dict) and isinstance(real, dict):
        return all(name in real and same_as_far_as_shown(value, real[name]) for name, value in shown.items())
    if isinstance(shown, list) and isinstance(real, list):
        return len(shown) <= len(real) and all(map(same_as_far_as_shown, shown, real))
    if isinstance(shown, str) and isinstance(real, str):
        return re.fullmatch(re.escape(shown).replace("…", ".*"), real, re.S) is not None
    return type(shown) is type(real) and (isinstance(shown, int | float) or shown == real)


def test_curl_session_prints_the_answers_shown(launched: Launcher) -> None:
    sign_in, ask, listen = [block for block in blocks("sh") if "curl" in block]
    (answer,) = blocks("json")
    result = json.loads(typed(sign_in + ask, launched))
    assert same_as_far_as_shown(json.loads(answer), result), result
    events = events_of(typed(sign_in + listen, launched))
    (stream,) = [block for block in blocks("") if block.startswith("id: ")]
    assert [name for _, name, _ in events][-1] == "run.completed"
    for _, name, data in events_of(stream):
        assert any(other == name and same_as_far_as_shown(data, real) for _, other, real in events), (
            name,
            data,
        )


def test_every_named_make_target_exists() -> None:
    named = set(re.findall(r"make ([a-z-]+)", README))
    assert {"run", "test", "check", "help"} <= named <= set(re.findall(r"^([a-z-]+):", MAKEFILE, re.M))


def test_every_named_file_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", README)
    assert len(links) >= 8
    table = re.findall(r"^\| `([^`]+)`", README, re.M)
    for name in [*links, *table]:
        if not name.startswith("http"):
            assert (ROOT / name).exists(), name
