"""`REMOTE_AGENTS`: agents that run elsewhere, with their addresses."""

from __future__ import annotations

import pytest

from config import ConfigError, load


def test_agents_are_listed_with_their_addresses() -> None:
    given = " research=http://research:9100/research, writer=https://writer.example.com ,"
    assert load({"REMOTE_AGENTS": given}).remote_agents == (
        "research=http://research:9100/research,writer=https://writer.example.com"
    )


@pytest.mark.parametrize(
    "agents",
    [
        "research",
        "research=research:9100",
        "Research=http://research",
        "research=http://user:secret@research/x",
        "research=http://research/?key=1",
        "=http://research",
    ],
)
def test_anything_else_is_refused(agents: str) -> None:
    with pytest.raises(ConfigError, match="REMOTE_AGENTS"):
        load({"REMOTE_AGENTS": agents})
