"""Pinned definitions of tools: in the database, with a copy in this process that outlives an outage."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from service.errors import DatabaseUnavailable
from service.store import mcp as rows
from service.store.database import Database

log = logging.getLogger("slipway.mcp")


class Pin(NamedTuple):
    """Accepted definition of a tool. `offered`: digest of another that the server sends, which is not accepted."""

    digest: str
    definition: Mapping[str, Any]
    offered: str | None


class Pins:
    """Pins of all servers. Thread-safe: the copy is replaced as a whole."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._known: Mapping[tuple[str, str], Pin] | None = None  # not read yet

    def get(self, server: str, tool: str) -> Pin | None:
        """Return the pin as last read, or read now by a new process; None: the tool was never seen."""
        if self._known is None:  # a model must not be shown a tool without its definition
            try:
                self.reload()
            except DatabaseUnavailable:
                log.warning("mcp_pins_wait_for_database", extra={"server": server})
        return (self._known or {}).get((server, tool))

    def reload(self) -> None:
        """Read all pins. Raises `DatabaseUnavailable`."""
        found = self._db.query(rows.every)
        self._known = {
            (row["server"], row["tool"]): Pin(row["digest"], row["definition"], row["offered_digest"])
            for row in found
        }

    def see(self, server: str, found: Mapping[str, rows.Definition]) -> None:
        """Pin what is new and note what has changed. Without a database the copy stays as it is."""
        try:
            if any(self._differs(server, tool, one.digest) for tool, one in found.items()):
                self._db.transact(lambda tx: rows.see(tx, server, found))
                self.reload()
                self._log_changes(server, found)
        except DatabaseUnavailable:
            log.warning("mcp_pins_wait_for_database", extra={"server": server})

    def _differs(self, server: str, tool: str, digest: str) -> bool:
        pin = self.get(server, tool)
        return pin is None or (pin.offered or pin.digest) != digest

    def _log_changes(self, server: str, found: Mapping[str, rows.Definition]) -> None:
        for tool in found:
            pin = self.get(server, tool)
            if pin is not None and pin.offered is not None:
                log.warning("mcp_tool_changed", extra={"server": server, "tool": tool})
