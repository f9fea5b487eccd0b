"""Agents, and the public interface for code of an agent's own: `docs/own-code.md`.

An agent's `agent.py` usually needs only `from service.agents import Answer, Context, Events, Prompt, answer_of`.
"""

from service.agents.pattern import Context, Events, Prompt, answer_of, assistant_turn, tool_turn
from service.errors import AgentFault, RunLimit
from service.llm.client import ModelReply
from service.tools import ToolResult
from service.types import Answer

__all__ = [
    "AgentFault",
    "Answer",
    "Context",
    "Events",
    "ModelReply",
    "Prompt",
    "RunLimit",
    "ToolResult",
    "answer_of",
    "assistant_turn",
    "tool_turn",
]
