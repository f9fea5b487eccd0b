"""`agent.py`: loaded with its folder, and its faults with file and line."""

from __future__ import annotations

import pytest

from service.agents.own_code import load_program
from tests.agents import house
from tests.agents.folders import Write, only_fault, write

__all__ = ["write"]
CODE = "description: A test agent.\npattern: code\n"
RUN = """\
from service.agents import Answer, Context, Events


def run(context: Context) -> Events[Answer]:
    yield from ()
    return Answer("x", "end_turn", "none")
"""


def test_each_loading_imports_the_module_anew(write: Write) -> None:
    folder = write(agent_yaml=CODE, agent_py=RUN) / "probe"
    assert load_program(folder).run is not load_program(folder).run
    assert house.load(folder.parent).agents["probe"].program is not None


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        (None, "agent.py: is missing: write `def run(context)`, with"),
        ("x = 1\n", "agent.py: has no function `run`: write"),
        ("class run: ...\n", "agent.py: has no function `run`: write"),
        ("\ndef run(context):\n    return 1\n", "agent.py:2: `run` is no generator function: write"),
        ("async def run(context):\n    yield 1\n", "agent.py:1: `run` is no generator function: write"),
        ("def run():\n    yield\n", "agent.py:1: `run` must take one parameter, the context"),
        ("def run(context, more=1):\n    yield\n", "agent.py:1: `run` must take one parameter"),
        ("def run(*, context):\n    yield\n", "agent.py:1: `run` must take one parameter"),
        ("import nothing_of_that_name\n", "agent.py:1: ModuleNotFoundError: there is no module"),
        ("\n\n1 / 0\n", "agent.py:3: ZeroDivisionError"),
        ("raise SystemExit('hush')\n", "agent.py:1: SystemExit"),
        ("def run(:\n", "agent.py:1: SyntaxError: invalid syntax"),
    ],
)
def test_a_fault_names_the_file_and_the_line(write: Write, code: str | None, shown: str) -> None:
    fault = only_fault(write(agent_yaml=CODE, agent_py=code))
    where = str(fault).partition("/probe/")[2]
    assert where.startswith(shown) and "hush" not in where


def test_code_beside_another_pattern_is_a_warning(write: Write) -> None:
    [warning] = house.load(write(agent_py=RUN)).warnings
    assert str(warning).endswith("/probe/agent.py: warning: pattern single does not read it: use code")


def test_broken_edit_leaves_the_last_good_code_in_use(write: Write) -> None:
    folder = write(agent_yaml=CODE, agent_py=RUN)
    catalog = house.load(folder, reloads=True)
    before = catalog.agents["probe"].version
    write(agent_yaml=None, prompt_md=None, agent_py="def run(context):\n    return 1\n")
    catalog.refresh()
    [fault] = catalog.faults
    assert (fault.line, catalog.agents["probe"].version) == (1, before)
    assert catalog.agents["probe"].program is not None
