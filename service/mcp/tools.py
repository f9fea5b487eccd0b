"""Tool source of MCP servers: `server.tool`, called only while its server sends the pinned definition."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mcp import MCPError
from mcp_types import CallToolResult

from service.errors import DatabaseUnavailable, ModelUnavailable
from service.mcp.arguments import ArgumentCheck
from service.mcp.config import ServerSpec, ToolRule
from service.mcp.connection import ConnectionLost, NotConnected
from service.mcp.connections import MOST_CALLS, Busy, Connections, Key
from service.mcp.credentials import Credentials, NoCredential
from service.mcp.pins import Pin, Pins
from service.mcp.results import content_of
from service.tools.base import Tool, ToolContext, ToolFailed, listed
from service.tools.runner import ToolLost

LOOK_SECONDS = 12.0
_UNSEEN = "This tool's server has not been reached yet, so its arguments are not known and calls fail."


@dataclass(frozen=True, slots=True)
class McpTool(Tool):
    """Tool whose definition is the pinned one at the time of each model call; it stays listed while its server is away.

    Its `input_schema` names no properties, as they are not known when an agent is loaded.
    """

    pin: Callable[[], Pin | None] = lambda: None

    def __post_init__(self) -> None:
        """Accept a name with a dot: `service.mcp.config` has checked it."""

    def for_model(self) -> dict[str, Any]:
        pin = self.pin()
        if pin is None:
            return Tool.for_model(self)
        definition = pin.definition
        return {
            "name": self.name,
            "description": definition["description"],
            "input_schema": definition["input_schema"],
        }


class McpTools:
    """Tool source of all configured servers."""

    kind = "MCP"
    file = ""

    def __init__(
        self,
        servers: Mapping[str, ServerSpec],
        pins: Pins,
        connections: Connections,
        credentials: Credentials,
    ) -> None:
        self._pins, self._connections, self._credentials = pins, connections, credentials
        self._tools = {
            f"{server}.{name}": self._tool(server, spec, name, rule)
            for server, spec in servers.items()
            for name, rule in spec.tools.items()
        }

    def tools(self, folder: Path) -> Mapping[str, Tool]:
        return self._tools

    def _tool(self, server: str, spec: ServerSpec, name: str, rule: ToolRule) -> Tool:
        pin = partial(self._pins.get, server, name)
        return McpTool(
            name=f"{server}.{name}",
            description=_UNSEEN,
            input_schema={"type": "object"},
            run=partial(self._run, server, spec, name),
            idempotent=rule.repeatable,
            risk=rule.risk,
            timeout=rule.timeout_seconds,
            sends=rule.sends,
            faults=ArgumentCheck(pin),
            pin=pin,
        )

    def _run(
        self, server: str, spec: ServerSpec, name: str, arguments: Mapping[str, Any], context: ToolContext
    ) -> Any:
        """Call the tool. Raises `ToolFailed` when it was not called or failed, `ToolLost` when it may have happened."""
        key = Key(server, context.user_id if spec.credentials == "user" else "")
        ends = min(time.monotonic() + spec.tools[name].timeout_seconds, context.deadline)
        try:
            with self._connections.place(server):
                self._admit(key, name, min(ends - time.monotonic(), LOOK_SECONDS))
                self._check(server, name, arguments)
                # No longer than to the end of the wait for it: a call that begins later is one that nobody asked for.
                left = ends - time.monotonic()
                result = self._connections.call(key, name, arguments, left, context.idempotency_key)
        except Busy:
            raise ToolFailed(f"{server} has {MOST_CALLS} calls under way: try later") from None
        except NotConnected:
            raise ToolFailed(self._unreached(key, spec)) from None
        except (TimeoutError, ConnectionLost):
            raise ToolLost(f"{server}.{name} did not answer") from None
        except ModelUnavailable:
            raise ToolFailed(f"{server} has not been answering and is given a pause: try later") from None
        except MCPError as error:
            raise ToolFailed(f"{server}.{name} was refused by its server: {error.message}") from None
        return _checked(result)

    def _check(self, server: str, name: str, arguments: Mapping[str, Any]) -> None:
        """Check arguments again: another definition may have been accepted since a person was asked."""
        if faults := self._tools[f"{server}.{name}"].faults(arguments):
            raise ToolFailed(f"Invalid arguments. {listed(faults)}")

    def _admit(self, key: Key, name: str, seconds: float) -> None:
        """Raise `ToolFailed` unless the server sends the pinned definition; look again before that is said.

        Raises `NotConnected` where it cannot be looked at.
        """
        if self._fits(key, name, self._connections.of(key).found):
            return
        try:
            found = self._connections.look(key, seconds)
        except TimeoutError:
            raise NotConnected from None
        try:
            self._pins.reload()
        except DatabaseUnavailable:
            raise ToolFailed(f"{key.server}.{name} was not called: its definition cannot be read") from None
        if name not in found:
            raise ToolFailed(f"{key.server} does not offer {name} now")
        if not self._fits(key, name, found):
            raise ToolFailed(f"{key.server}.{name} has changed and is off until an operator accepts it")

    def _fits(self, key: Key, name: str, found: Mapping[str, Any]) -> bool:
        pin, sent = self._pins.get(key.server, name), found.get(name)
        return pin is not None and sent is not None and sent.digest == pin.digest

    def _unreached(self, key: Key, spec: ServerSpec) -> str:
        try:
            self._credentials.find(key.server, spec.credentials, key.user_id)
        except NoCredential:
            whose = "you" if key.user_id else "this service"
            return f"{key.server} needs a credential, and there is none for {whose}"
        except DatabaseUnavailable:
            pass
        return f"{key.server} is not reached now, so the tool was not called: try later"


def _checked(result: CallToolResult) -> Any:
    content = content_of(result)
    if result.is_error:
        raise ToolFailed(content if isinstance(content, str) and content else "The tool failed")
    return content
