"""Client for the conformance suite: connects as the service does, and calls the tools that the scenario asks for.

`python -m tests.mcp.conformance_client URL`; the suite names the scenario and its calls in the environment.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Mapping
from typing import Any

import anyio
from mcp import MCPError

from service.mcp.connection import Connection
from service.mcp.http import http
from service.mcp.messages import Transport
from service.store.mcp import Definition

ADD, ECHO = "add_numbers", "json_schema_echo"  # tools of scenarios which tell no calls in their context


class EveryName(frozenset[str]):
    """Allow-list of every tool: the suite does not tell all names before it is asked for the list."""

    def __contains__(self, name: object) -> bool:
        return True


async def main(url: str) -> None:
    """Connect, list, make the scenario's calls, and end."""
    context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")

    async def connect() -> Transport:
        return http(url, None)

    async def listed(found: Mapping[str, Definition]) -> None:
        print("listed", *found, flush=True)

    def changed(up: bool, reason: str) -> None:
        print("up" if up else f"down: {reason}", flush=True)

    connection = Connection(connect, EveryName(), listed, changed)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(connection.keep)
        await connection.look()
        for call in context.get("toolCalls") or [_call(name, connection.found) for name in connection.found]:
            await _tried(connection.call(call["name"], call["arguments"]))
        connection.close()


def _call(name: str, found: Mapping[str, Definition]) -> dict[str, Any]:
    """Return a call with the arguments that the suite expects; the echo gets the schema of the other tool."""
    if name == ECHO:
        others = [one.body["input_schema"] for other, one in found.items() if other != ECHO]
        return {"name": name, "arguments": {"schema": others[0]}}
    return {"name": name, "arguments": {"a": 2, "b": 3} if name == ADD else {}}


async def _tried(call: Awaitable[Any]) -> None:
    try:
        print("result", (await call).model_dump_json()[:300], flush=True)
    except (MCPError, ValueError) as error:
        print("refused", type(error).__name__, flush=True)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
