from __future__ import annotations

import json
import subprocess
import sys

from service.llm.sdk import CATALOGUES, CLOUD
from tests.conftest import ROOT

IMPORTS = {"alone": "import anthropic", "ours": "from service.llm.sdk import anthropic"}
NAMES = """
import importlib, json, sys
found = {}
for package in ("anthropic", "anthropic.types", "anthropic.resources", "anthropic.types.beta"):
    module = importlib.import_module(package)
    names = [*NAMES.get(package, ())] or [name for name in dir(module) if not name.startswith("_")]
    values = {name: getattr(module, name) for name in names}
    found[package] = {name: value.__qualname__ for name, value in values.items() if hasattr(value, "__qualname__")}
json.dump(found, sys.stdout)
"""


def python(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout


def names(how: str, known: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """The public classes and functions of the SDK; `known` says which to look for."""
    return dict(json.loads(python(f"{IMPORTS[how]}\nNAMES = {known!r}\n{NAMES}")))


def test_every_name_of_the_sdk_is_there() -> None:
    plain = names("alone", {})
    assert plain["anthropic"]["AnthropicVertex"] == "AnthropicVertex"
    assert plain["anthropic.types"]["Message"] == "Message"
    assert len(plain["anthropic.types.beta"]) > 500
    assert names("ours", plain) == plain


def test_what_can_wait_is_not_loaded() -> None:
    loaded = python(f"import sys; {IMPORTS['ours']}; print(*sys.modules)").split()
    assert "anthropic.resources.messages.messages" in loaded
    assert not {CLOUD, "anthropic.resources.beta.beta", "anthropic.types.beta_error"} & {*loaded}


def test_less_than_half_of_the_sdk_is_loaded() -> None:
    count = "import sys; {}; print(sum(name.startswith('anthropic') for name in sys.modules))"
    alone, ours = (int(python(count.format(how))) for how in (IMPORTS["alone"], IMPORTS["ours"]))
    assert ours < alone / 2


def test_its_catalogues_are_where_we_look() -> None:
    code = f"import sys, {', '.join(CATALOGUES)}; print(*(hasattr(sys.modules[n], '__path__') for n in {CATALOGUES}))"
    assert python(code) == "True True\n"
