"""Tool sources: built-in tools, and the functions of an agent's `tools.py`.

To add one: a module with a `ToolSource`, and an entry in `SOURCES`.
"""

from __future__ import annotations

from collections.abc import Sequence

from service.tools.sources.author import AuthorTools
from service.tools.sources.base import ToolSource
from service.tools.sources.builtin import BuiltinTools

SOURCES: Sequence[ToolSource] = (BuiltinTools(), AuthorTools())
