"""Tool sources: built-in tools, tables and skills of an agent's folder, and the functions of its `tools.py`.

To add one: a module with a `ToolSource`, and an entry in `sources`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from service.tools.sources.author import AuthorTools
from service.tools.sources.base import ToolSource
from service.tools.sources.builtin import BuiltinTools
from service.tools.sources.memory import MemoryTools
from service.tools.sources.skills import SkillTools
from service.tools.sources.tables import TableTools
from service.tools.sources.web import WebTools


def sources(fetch_hosts: Collection[str] = ()) -> Sequence[ToolSource]:
    """Return the sources of this process; `fetch_hosts`: see `service.tools.fetch.Fetcher`."""
    return (BuiltinTools(), WebTools(fetch_hosts), MemoryTools(), TableTools(), SkillTools(), AuthorTools())


SOURCES: Sequence[ToolSource] = sources()
