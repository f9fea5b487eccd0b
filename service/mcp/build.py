"""Construction of the MCP client of one process. Nothing is connected, and the SDK is not imported, without servers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from service.errors import DatabaseUnavailable
from service.infra.backends import Infra
from service.mcp.config import McpConfig, load
from service.mcp.credentials import Credentials
from service.mcp.pins import Pins
from service.tools.sources.base import ToolSource

if TYPE_CHECKING:
    from config.base import Settings
    from service.mcp.connections import Connections

log = logging.getLogger("slipway.mcp")
FILE = "mcp.yaml"


@dataclass(frozen=True, slots=True)
class McpServices:
    """Servers of this process; without any `connections` is None and there are no sources."""

    config: McpConfig
    pins: Pins
    credentials: Credentials
    connections: Connections | None
    sources: Sequence[ToolSource]

    def refresh(self) -> None:
        """Read the pins and connect to the servers; called by each sweep. Raises nothing."""
        if self.connections is not None:
            self.connections.start()
            try:
                self.pins.reload()
            except DatabaseUnavailable:
                log.warning("mcp_pins_wait_for_database", extra={"server": ""})

    def close(self) -> None:
        if self.connections is not None:
            self.connections.close()


def build(settings: Settings, infra: Infra) -> McpServices:
    """Read the file of servers; faults are logged and leave no server."""
    config = load(file_of(settings))
    for fault in config.faults:
        detail = f"{config.file}:{fault.line}: {fault.field}: {fault.detail}"
        log.error("mcp_config_fault", extra={"fault": detail})
    pins, credentials = (
        Pins(infra.db),
        Credentials(infra.db, settings.secret_key.get_secret_value()),
    )
    if not config.servers:
        return McpServices(config, pins, credentials, None, ())
    from service.mcp.connections import Connections  # the SDK takes memory and time
    from service.mcp.tools import McpTools

    connections = Connections(config.servers, pins, credentials, infra.metrics.mcp_up)
    source = McpTools(config.servers, pins, connections, credentials)
    return McpServices(config, pins, credentials, connections, (source,))


def file_of(settings: Settings) -> Path:
    return Path(settings.mcp_servers) if settings.mcp_servers else settings.agents_dir.parent / FILE
