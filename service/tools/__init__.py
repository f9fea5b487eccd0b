"""Tools that models may call. An agent's `tools.py` usually needs only `from service.tools import tool`."""

from service.tools.base import BadTool, Tool, ToolContext, ToolFailed, ToolOutput, tool
from service.tools.runner import ToolResult, ToolRunner

__all__ = ["BadTool", "Tool", "ToolContext", "ToolFailed", "ToolOutput", "ToolResult", "ToolRunner", "tool"]
