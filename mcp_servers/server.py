"""MCP server over streamable HTTP: tools with a JSON Schema each, without sessions."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import anyio
import jsonschema_rs
import mcp_types as types
from mcp import MCPError
from mcp.server.lowlevel import Server
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from mcp_servers.store import Refused

MAX_BODY = 64 * 1024  # bytes of a request
MAX_FAULT = 300  # characters of a message about an argument
AT_ONCE = 8  # calls that use the store; others wait
IDEMPOTENCY_KEY = "slipway/idempotency-key"  # in `_meta` of a call: the same for all attempts at it
LOCAL = ("127.0.0.1", "localhost", "[::1]")

Arguments = Mapping[str, Any]
# Called with valid arguments and the idempotency key, or an empty one. Raises `Refused`.
Work = Callable[[Arguments, str], dict[str, Any]]


@dataclass(frozen=True)
class Tool:
    """Tool of a server."""

    name: str
    description: str
    properties: Mapping[str, Mapping[str, Any]]
    required: Sequence[str]
    work: Work

    @cached_property
    def schema(self) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": dict(self.properties),
            "required": list(self.required),
            "additionalProperties": False,
        }

    @cached_property
    def _validator(self) -> jsonschema_rs.Validator:
        return jsonschema_rs.validator_for(self.schema, mask="the value")

    def call(self, arguments: Arguments, key: str) -> dict[str, Any]:
        """Validate the arguments and do the work. Raises `Refused`."""
        for fault in self._validator.iter_errors(arguments):
            at = "/".join(["", *map(str, fault.instance_path)])
            raise Refused(f"Invalid arguments. {at or 'arguments'}: {fault.message[:MAX_FAULT]}")
        return self.work(arguments, key)


def app(name: str, tools: Sequence[Tool]) -> Starlette:
    """Build the ASGI application of a server: `/mcp`, and `/health`.

    Requests are for this machine, or for a host of the server's own name, as in a Compose file: a page in a browser
    that has its host name resolved to this address is refused.
    """
    hosts = [f"{host}:*" for host in (*LOCAL, name)]
    security = TransportSecuritySettings(
        allowed_hosts=hosts, allowed_origins=[f"http://{host}" for host in hosts]
    )
    server: Server[Any] = Server(
        name,
        on_list_tools=partial(_listed, tools),
        on_call_tool=partial(_called, {tool.name: tool for tool in tools}, anyio.CapacityLimiter(AT_ONCE)),
    )
    return server.streamable_http_app(
        json_response=True,
        stateless_http=True,
        max_request_body_size=MAX_BODY,
        transport_security=security,
        custom_starlette_routes=[Route("/health", _health)],
    )


async def _health(request: Request) -> PlainTextResponse:
    return PlainTextResponse("ok\n")


async def _listed(tools: Sequence[Tool], context: Any, params: Any) -> types.ListToolsResult:
    listed = [
        types.Tool(name=tool.name, description=tool.description, input_schema=tool.schema) for tool in tools
    ]
    return types.ListToolsResult(tools=listed)


async def _called(
    tools: Mapping[str, Tool],
    limiter: anyio.CapacityLimiter,
    context: Any,
    params: types.CallToolRequestParams,
) -> types.CallToolResult:
    tool = tools.get(params.name)
    if tool is None:
        raise MCPError(types.INVALID_PARAMS, "There is no such tool")
    key = dict(params.meta or {}).get(IDEMPOTENCY_KEY, "")
    try:
        if not isinstance(key, str):
            raise Refused("The idempotency key is no text.")
        result = await anyio.to_thread.run_sync(tool.call, params.arguments or {}, key, limiter=limiter)
    except Refused as refusal:
        return _result(str(refusal), failed=True)
    except sqlite3.Error:  # rolled back, so nothing was done
        return _result("The store cannot be used now, so nothing was done: try later.", failed=True)
    return _result(json.dumps(result, ensure_ascii=False))


def _result(text: str, *, failed: bool = False) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=failed)
