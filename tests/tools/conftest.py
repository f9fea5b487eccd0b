from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from service.tools import ToolContext
from service.tools.context import KnowledgeSearch

MakeContext = Callable[..., ToolContext]


@pytest.fixture
def context() -> MakeContext:
    """Makes the context of one call; `seconds` is what is left of its run."""

    def make(seconds: float = 60.0, knowledge: KnowledgeSearch | None = None) -> ToolContext:
        return ToolContext("run_1", "usr_1", "probe", "toolu_1", time.monotonic() + seconds, knowledge)

    return make
